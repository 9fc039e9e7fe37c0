"""Rewards: against TRL, against a direct formula, and the same however they are computed."""

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml

from dporun_testing.adapters import save_random_adapter
from dporun_testing.tiny_model import chat_pairs, save_tiny_model, text_pairs
from dporun_trainer.data.pairs import Pair
from dporun_trainer.evaluation import scoring
from dporun_trainer.evaluation.policy import Policy, load_policy
from dporun_trainer.evaluation.scoring import (
    EncodedPair,
    LogProb,
    Reward,
    Tokens,
    completion_logps,
    encode_pair,
    encode_prompt,
    rewards,
)

BETA = 0.3
LONG = {"prompt": "please " * 60, "chosen": " yes", "rejected": " no"}
ROWS = {"chat": chat_pairs(9), "text": [*text_pairs(9, seed=3), LONG]}
MAX_LENGTH = {"chat": 36, "text": 22}
"""Cuts some of the responses, and fits every prompt but the long one."""
DATA_CASES = Path(__file__).parents[1] / "inputs/cases/data"


@dataclass(frozen=True)
class Models:
    base: Path
    adapter: Path


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("models")
    base = save_tiny_model(folder / "base")
    return Models(base, save_random_adapter(base, folder / "adapter"))


@pytest.fixture(scope="module")
def policy(models: Models) -> Policy:
    return load_policy(models.adapter, base=models.base)


def encoded(policy: Policy, kind: str) -> list[EncodedPair]:
    pairs = [Pair(row["prompt"], row["chosen"], row["rejected"]) for row in ROWS[kind]]
    found = [encode_pair(pair, policy.tokenizer, max_length=MAX_LENGTH[kind]) for pair in pairs]
    return [tokens for tokens in found if tokens is not None]


def values(results: list[Reward]) -> list[float]:
    return [value for result in results for value in (result.chosen, result.rejected)]


@pytest.fixture(scope="module", params=["chat", "text"])
def trl(request: pytest.FixtureRequest, models: Models, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """TRL's trainer with our adapter, and the rewards it logs for each pair at batch size 1."""
    from datasets import Dataset
    from peft import LoraConfig, set_peft_model_state_dict
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    class Recording(DPOTrainer):  # type: ignore[misc]
        def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
            self.seen = {name: list(found) for name, found in self._metrics["eval"].items()}
            super().log(logs, start_time)

    data = Dataset.from_list(ROWS[request.param])
    arguments = DPOConfig(
        output_dir=str(tmp_path_factory.mktemp("trl")),
        per_device_eval_batch_size=1,
        beta=BETA,
        max_length=MAX_LENGTH[request.param],
        bf16=False,
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
    )
    trainer = Recording(
        model=AutoModelForCausalLM.from_pretrained(models.base),
        args=arguments,
        train_dataset=data,
        eval_dataset=data,
        processing_class=AutoTokenizer.from_pretrained(models.base),
        peft_config=LoraConfig.from_pretrained(models.adapter),
    )
    set_peft_model_state_dict(trainer.model, load_file(models.adapter / "adapter_model.safetensors"))
    trainer.evaluate()
    return request.param, trainer


def test_tokens_are_those_of_trl(trl: Any, policy: Policy) -> None:
    kind, trainer = trl
    ours = encoded(policy, kind)
    theirs = list(trainer.eval_dataset)
    assert len(ours) == len(theirs) == 9, "a prompt that fills max_length is left out"
    cut = 0
    for mine, row in zip(ours, theirs, strict=True):
        for side, tokens in (("chosen", mine.chosen), ("rejected", mine.rejected)):
            batch = trainer.data_collator([{name: row[name] for name in ("prompt_ids", "chosen_ids", "rejected_ids")}])
            index = 0 if side == "chosen" else 1
            attended = batch["attention_mask"][index].bool()
            assert list(tokens.prompt + tokens.completion) == batch["input_ids"][index][attended].tolist()
            assert len(tokens.completion) == int(batch["completion_mask"][index].sum())
            cut += len(tokens) < len(row["prompt_ids"]) + len(row[f"{side}_ids"])
    assert cut, "the case must have a response that is cut"


@pytest.mark.parametrize("case", ["template_think", "template_system_last"])
def test_tokens_are_those_of_trl_where_prompts_lose_some(models: Models, case: str) -> None:
    """The templates are those of the cases in which prepare warns of it or refuses it."""
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import DPOTrainer

    content = yaml.safe_load((DATA_CASES / f"{case}.yaml").read_text(encoding="utf-8"))
    tokenizer = AutoTokenizer.from_pretrained(models.base)
    tokenizer.chat_template = {"default": content["chat_template"], "tool_use": "{{ tools }}"}
    rows = [{name: row[name] for name in ("prompt", "chosen", "rejected")} for row in content["rows"]]
    arguments = SimpleNamespace(dataset_num_proc=None, max_length=128, truncation_mode="keep_start")
    trainer = SimpleNamespace(_tokenizer=tokenizer)
    theirs = DPOTrainer._prepare_dataset(trainer, Dataset.from_list(rows), tokenizer, arguments, "train")
    lost = 0
    for row, tokens in zip(rows, theirs, strict=True):
        ours = encode_pair(Pair(**row), tokenizer, max_length=128)
        assert ours is not None
        assert list(ours.chosen.prompt) == list(ours.rejected.prompt) == tokens["prompt_ids"]
        assert list(ours.chosen.completion) == tokens["chosen_ids"]
        assert list(ours.rejected.completion) == tokens["rejected_ids"]
        lost += len(encode_prompt(row["prompt"], tokenizer)) - len(tokens["prompt_ids"])
    assert lost > 0


def test_rewards_are_those_that_trl_logs(trl: Any, policy: Policy) -> None:
    kind, trainer = trl
    ours = rewards(policy, encoded(policy, kind), beta=BETA, batch_size=4)
    assert [r.chosen for r in ours] == pytest.approx(trainer.seen["rewards/chosen"], abs=1e-5)
    assert [r.rejected for r in ours] == pytest.approx(trainer.seen["rewards/rejected"], abs=1e-5)
    assert [r.chosen_logps.tuned.total for r in ours] == pytest.approx(trainer.seen["logps/chosen"], abs=1e-4)
    assert max(abs(value) for value in values(ours)) > 0.05, "an adapter that does nothing would prove nothing"


def test_rewards_are_the_direct_formula_in_float64(policy: Policy, models: Models) -> None:
    exact = load_policy(models.adapter, base=models.base)
    exact.model.double()

    def log_prob(model: Any, prompt: tuple[int, ...], completion: tuple[int, ...]) -> float:
        logits = model(input_ids=torch.tensor([prompt + completion])).logits[0]
        logps = torch.log_softmax(logits, -1)
        start = len(prompt)
        return sum(float(logps[start + k - 1, token]) for k, token in enumerate(completion))

    examples = encoded(policy, "chat")
    ours = rewards(policy, examples, beta=BETA, batch_size=3)
    with torch.no_grad():
        for example, reward in zip(examples, ours, strict=True):
            for tokens, value in ((example.chosen, reward.chosen), (example.rejected, reward.rejected)):
                tuned = log_prob(exact.model, tokens.prompt, tokens.completion)
                with exact.model.disable_adapter():
                    base = log_prob(exact.model, tokens.prompt, tokens.completion)
                assert value == pytest.approx(BETA * (tuned - base), abs=1e-5)


@pytest.mark.parametrize("batch_size", [1, 2, 5, 64])
def test_rewards_do_not_depend_on_batch_size(policy: Policy, batch_size: int) -> None:
    examples = encoded(policy, "chat")
    expected = values(rewards(policy, examples, beta=BETA, batch_size=3))
    assert values(rewards(policy, examples, beta=BETA, batch_size=batch_size)) == pytest.approx(expected, abs=1e-5)


def test_rewards_do_not_depend_on_order(policy: Policy) -> None:
    examples = encoded(policy, "text")
    forwards = rewards(policy, examples, beta=BETA, batch_size=4)
    backwards = rewards(policy, examples[::-1], beta=BETA, batch_size=4)
    assert values(forwards) == pytest.approx(values(backwards[::-1]), abs=1e-5)


def _shard(models: Models, rank: int, world_size: int) -> list[Reward]:
    torch.set_num_threads(1)
    policy = load_policy(models.adapter, base=models.base)
    return rewards(policy, encoded(policy, "chat")[rank::world_size], beta=BETA, batch_size=2)


@pytest.mark.slow
def test_two_processes_give_what_one_does(policy: Policy, models: Models) -> None:
    with ProcessPoolExecutor(2, mp_context=get_context("fork")) as processes:
        first, second = processes.map(_shard, [models] * 2, [0, 1], [2, 2])
    together: list[Reward] = [None] * (len(first) + len(second))  # type: ignore[list-item]
    together[0::2], together[1::2] = first, second
    alone = rewards(policy, encoded(policy, "chat"), beta=BETA)
    assert values(together) == pytest.approx(values(alone), abs=1e-5)
    mean = math.fsum(reward.margin for reward in together) / len(together)
    assert mean == pytest.approx(math.fsum(reward.margin for reward in alone) / len(alone), abs=1e-6)


def test_a_halved_batch_is_scored_anew_under_both_models(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    """In bf16 rounding depends on the batch: base and tuned model must have had the same one, whichever ran out."""
    scored: dict[str, list[list[Tokens]]] = {"base": [], "tuned": []}

    def completion(model: Any, batch: Sequence[Tokens], **arguments: Any) -> list[LogProb]:
        side = "base" if model.base_model.model.model.layers[0].mlp.up_proj.disable_adapters else "tuned"
        if side == "tuned" and len(batch) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        scored[side].append(list(batch))
        return completion_logps(model, batch, **arguments)

    monkeypatch.setattr(scoring, "completion_logps", completion)
    rewards(policy, encoded(policy, "chat"), beta=BETA, batch_size=3)
    assert scored["base"][0] not in scored["tuned"], "the batch that was too large under one of the models"
    assert scored["base"][1:] == scored["tuned"]


def test_progress_counts_pairs(policy: Policy) -> None:
    told: list[tuple[int, int]] = []
    rewards(policy, encoded(policy, "chat"), beta=BETA, batch_size=3, on_progress=lambda *at: told.append(at))
    assert told[-1] == (9, 9)
    assert sorted(told) == told


def test_text_responses_end_with_one_eos(policy: Policy) -> None:
    end = policy.tokenizer.eos_token
    plain = encode_pair(Pair("what is apple", " a fruit", " no"), policy.tokenizer, max_length=None)
    ended = encode_pair(Pair("what is apple", f" a fruit{end}", " no"), policy.tokenizer, max_length=None)
    assert plain == ended
    assert plain is not None
    assert plain.chosen.completion.count(policy.tokenizer.eos_token_id) == 1


def test_a_token_of_prompt_and_response_counts_as_response(policy: Policy) -> None:
    """The response begins where the two tokenisations part."""
    pair = Pair("what is app", "le", "ricot")
    tokens = encode_pair(pair, policy.tokenizer, max_length=None)
    assert tokens is not None
    assert len(tokens.chosen.prompt) < len(encode_prompt(pair.prompt, policy.tokenizer))
    assert tokens.chosen.prompt == tokens.rejected.prompt


def test_a_model_that_computes_all_logits_is_scored_alike() -> None:
    """Qwen2-Audio leaves ``logits_to_keep`` out."""
    from transformers import AutoModelForMultimodalLM, Qwen2AudioConfig

    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = size | {"model_type": "qwen2", "vocab_size": 384, "num_key_value_heads": 1}
    audio = {"d_model": 16, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 32}
    model = AutoModelForMultimodalLM.from_config(Qwen2AudioConfig(text_config=text, audio_config=audio)).eval()
    batch = [Tokens((5, 6, 7), (8, 9)), Tokens((10, 11), (12, 13, 14, 15))]
    for tokens, scored in zip(batch, completion_logps(model, batch, pad_token_id=0), strict=True):
        ids = torch.tensor([tokens.prompt + tokens.completion])
        with torch.inference_mode():
            logps = model(input_ids=ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])
        assert scored.tokens == len(tokens.completion)
        assert scored.total == pytest.approx(float(logps[len(tokens.prompt) - 1 :].sum()), abs=1e-5)
