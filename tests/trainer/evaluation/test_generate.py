"""Greedy answers in batches."""

import random
from pathlib import Path

import pytest
import torch
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

from dporun_testing.adapters import save_random_adapter
from dporun_testing.families import save, tiny_model
from dporun_testing.tiny_model import chat_pairs, save_tiny_model
from dporun_trainer.evaluation.generate import CACHES_OF_THEIR_OWN, answers_of_both, end_tokens, generate
from dporun_trainer.evaluation.policy import Policy, load_model, load_policy
from dporun_trainer.evaluation.scoring import encode_prompt


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Policy:
    torch.set_num_threads(1)
    folder: Path = tmp_path_factory.mktemp("models")
    base = save_tiny_model(folder / "base")
    return load_policy(save_random_adapter(base, folder / "adapter", scale=0.3), base=base)


@pytest.fixture(scope="module")
def prompts(policy: Policy) -> list[list[int]]:
    found = [encode_prompt(row["prompt"], policy.tokenizer) for row in chat_pairs(7)]
    assert len({len(prompt) for prompt in found}) > 2
    return found


def test_a_batch_gives_what_one_prompt_at_a_time_gives(policy: Policy, prompts: list[list[int]]) -> None:
    alone = answers_of_both(policy, prompts, max_new_tokens=12, batch_size=1)
    together = answers_of_both(policy, prompts, max_new_tokens=12, batch_size=4)
    assert together == alone
    assert [both.base for both in together] != [both.tuned for both in together]


def test_base_answers_are_those_of_the_base_model_alone(policy: Policy, prompts: list[list[int]]) -> None:
    whole = load_policy(Path(policy.source), base=policy.model.peft_config["default"].base_model_name_or_path)
    bare = whole.model.unload()
    both = answers_of_both(policy, prompts, max_new_tokens=8)
    assert [answers.base for answers in both] == generate(bare, policy.tokenizer, prompts, max_new_tokens=8)


def test_answers_are_cut_at_max_new_tokens_or_end_with_eos(policy: Policy, prompts: list[list[int]]) -> None:
    for both in answers_of_both(policy, prompts, max_new_tokens=5):
        for answer in both:
            ends = end_tokens(policy.model, policy.tokenizer)
            assert answer.finished == (answer.tokens[-1] in ends)
            assert answer.finished or len(answer.tokens) == 5
            assert not set(answer.tokens[:-1]) & ends


def test_generation_stops_at_every_end_token_the_model_names(policy: Policy, prompts: list[list[int]]) -> None:
    usual = generate(policy.model, policy.tokenizer, prompts[:1], max_new_tokens=6)[0]
    third = usual.tokens[2]
    first = usual.tokens.index(third)
    configured = policy.model.generation_config.eos_token_id
    policy.model.generation_config.eos_token_id = [configured, third]
    try:
        stopped = generate(policy.model, policy.tokenizer, prompts[:1], max_new_tokens=6)[0]
    finally:
        policy.model.generation_config.eos_token_id = configured
    assert stopped.finished
    assert stopped.tokens == usual.tokens[: first + 1]


@pytest.mark.parametrize("family", ["llama", "gpt2", "mistral", "qwen3_moe", "bloom", "granitemoehybrid"])
def test_answers_that_ended_leave_the_batch_and_change_none(family: str, policy: Policy) -> None:
    """Of families that count positions in different ways or forget the first, and one whose state cannot be divided."""
    model = tiny_model(family, tie_word_embeddings=False)  # tied, a random model repeats its last token
    model.generation_config.eos_token_id = list(range(10, 384, 12))  # so that answers end here and there
    chosen = random.Random(1)
    prompts = [[chosen.randrange(4, 384) for _ in range(chosen.randint(3, 40))] for _ in range(9)]
    sizes: list[int] = []
    model.register_forward_hook(lambda *call: sizes.append(len(call[2].logits)))
    together = generate(model, policy.tokenizer, prompts, max_new_tokens=16)
    assert sizes[0] == 9
    assert (min(sizes) < 5) == (family != "granitemoehybrid")
    assert len({len(answer.tokens) for answer in together}) > 3
    assert together == [generate(model, policy.tokenizer, [prompt], max_new_tokens=16)[0] for prompt in prompts]


def test_penalties_and_sampling_of_the_models_own_config_are_off(policy: Policy, prompts: list[list[int]]) -> None:
    plain = generate(policy.model, policy.tokenizer, prompts, max_new_tokens=10)
    own = policy.model.generation_config
    own.repetition_penalty, own.do_sample, own.temperature, own.no_repeat_ngram_size = 5.0, True, 9.0, 2
    try:
        assert generate(policy.model, policy.tokenizer, prompts, max_new_tokens=10) == plain
    finally:
        own.repetition_penalty, own.do_sample, own.temperature, own.no_repeat_ngram_size = 1.0, False, 1.0, 0


def test_a_prompt_without_room_for_an_answer_loses_its_beginning(policy: Policy) -> None:
    limit = policy.max_positions
    assert limit == 512
    long = encode_prompt("what is apple please " * 200, policy.tokenizer)
    assert len(long) > limit
    answer = answers_of_both(policy, [long], max_new_tokens=4)[0].tuned
    assert answer == answers_of_both(policy, [long[-(limit - 4) :]], max_new_tokens=4)[0].tuned


def test_progress_and_no_prompts(policy: Policy, prompts: list[list[int]]) -> None:
    told: list[tuple[int, int]] = []
    answers_of_both(policy, prompts, max_new_tokens=2, batch_size=4, on_progress=lambda *at: told.append(at))
    assert told == [(4, 7), (7, 7)]
    assert answers_of_both(policy, [], max_new_tokens=2) == []


def test_a_router_that_shows_its_logits_generates_too(policy: Policy, prompts: list[list[int]], tmp_path: Path) -> None:
    """Mixtral computes its load-balancing loss then, which fails on a single token; merged/ keeps the setting."""
    base = save(
        tiny_model("mixtral", output_router_logits=True), tmp_path / "base", Path(policy.source).parent / "base"
    )
    routed = load_policy(base, base=base)
    both = answers_of_both(routed, prompts[:3], max_new_tokens=4, batch_size=3)
    assert all(answers.base == answers.tuned for answers in both)
    assert load_model(base, "auto").config.output_router_logits


def test_caches_of_their_own_are_as_transformers_says() -> None:
    theirs = {
        config.model_type
        for config, model in MODEL_FOR_CAUSAL_LM_MAPPING.items()
        if not getattr(model, "_supports_default_dynamic_cache", lambda: True)()
    }
    assert theirs == CACHES_OF_THEIR_OWN
