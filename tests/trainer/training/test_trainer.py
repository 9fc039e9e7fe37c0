"""The trainer used alone, by a person who did not launch it: it keeps what TRL promises of its DPOTrainer.

Written from the behaviour that TRL's own tests/test_dpo_trainer.py checks, with tiny models made here.
"""

import math
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dporun_api.results import Health, HealthState
from dporun_api.run_config import Dpo
from dporun_testing import tiny_model
from dporun_testing.training import a_config
from dporun_testing.validating import OBJECTIVES
from dporun_trainer.machine import Machine
from dporun_trainer.memory import Shape
from dporun_trainer.run_folder import RunFolder
from dporun_trainer.training.plan import decide_losses, decide_plan

pytestmark = [pytest.mark.slow(60), pytest.mark.usefixtures("_not_launched")]

ROWS = tiny_model.text_pairs(8)
HELD_OUT = tiny_model.text_pairs(5, seed=1)
SETS: dict[str, Callable[[Any], Any]] = {
    "a set": lambda rows: rows,
    "an iterable set": lambda rows: rows.to_iterable_dataset(),
    "a DatasetDict": lambda rows: _datasets().DatasetDict(one=rows, two=rows.select(range(3))),
    "an IterableDatasetDict": lambda rows: _datasets().IterableDatasetDict(
        one=rows.to_iterable_dataset(), two=rows.select(range(3)).to_iterable_dataset()
    ),
    "a dict of sets": lambda rows: {"one": rows, "two": rows.select(range(3))},
    "a dict of iterable sets": lambda rows: {
        "one": rows.to_iterable_dataset(),
        "two": rows.select(range(3)).to_iterable_dataset(),
    },
}


@pytest.fixture
def _not_launched(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ACCELERATE_USE_DEEPSPEED", "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def make(model: Path, tmp_path: Path) -> Callable[..., Any]:
    """Make a trainer: arguments of TRL's DPOConfig by name, and those of the trainer in ``trainer``."""

    def made(trainer: dict[str, Any] | None = None, **arguments: Any) -> Any:
        from transformers import AutoTokenizer
        from trl import DPOConfig

        from dporun_trainer.training.trainer import RunTrainer, TrainingRun

        config = a_config()
        machine = Machine(cuda=False, bf16=True, memory=2**34, name="the CPU")
        shape = Shape(50_000, 5_000, 32, 64, 2, 384, 4, 64, lora_dropout=False)
        run = TrainingRun(
            config=config,
            plan=decide_plan(config, machine, shape, train_rows=len(ROWS), validation_rows=len(HELD_OUT)),
            machine=machine,
            folder=RunFolder(tmp_path),
            identity={},
            resumed=None,
            trainable=5_000,
            stop=threading.Event(),
            diagnose=lambda _: Health(state=HealthState.UNKNOWN),
        )
        defaults: dict[str, Any] = {
            "output_dir": str(tmp_path),
            "max_steps": 2,
            "per_device_train_batch_size": 2,
            "per_device_eval_batch_size": 2,
            "learning_rate": 0.1,
            "max_length": 64,
            "logging_steps": 1,
            "use_cpu": True,
            "bf16": False,
            "activation_checkpointing": False,
            "save_strategy": "no",
            "report_to": "none",
            "disable_tqdm": True,
        }
        parts: dict[str, Any] = {
            "model": str(model),
            "processing_class": AutoTokenizer.from_pretrained(model),
            "train_dataset": a_set(ROWS),
        }
        return RunTrainer(run=run, args=DPOConfig(**defaults | arguments), **parts | (trainer or {}))

    return made


def _datasets() -> Any:
    import datasets

    return datasets


def a_set(rows: list[dict[str, Any]]) -> Any:
    return _datasets().Dataset.from_list(rows)


def weights(model: Any) -> dict[str, Any]:
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


def changed(before: dict[str, Any], model: Any) -> set[str]:
    return {name for name, weight in model.named_parameters() if not before[name].equal(weight.detach())}


def trains(trainer: Any, expected: Callable[[str], bool] = lambda _: True) -> None:
    """It trains, and changes the weights that are expected to change, and no others."""
    before = weights(trainer.model)
    trainer.train()
    assert math.isfinite(trainer.state.log_history[-1]["train_loss"])
    assert changed(before, trainer.model) == {name for name in before if expected(name)}


# Models


@pytest.mark.parametrize("kind", ["Llama", "Qwen2", "Qwen3Moe", "GPTNeoX"])
def test_a_whole_model_is_trained(make: Callable[..., Any], tmp_path: Path, kind: str) -> None:
    import torch
    import transformers

    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "vocab_size": 384,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "pad_token_id": 0,
    }
    if kind != "GPTNeoX":
        sizes |= {"num_key_value_heads": 2}
    if kind == "Qwen3Moe":
        sizes |= {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "head_dim": 8}
        sizes |= {"output_router_logits": True, "decoder_sparse_step": 1}
    config = getattr(transformers, f"{kind}Config")(**sizes)
    getattr(transformers, f"{kind}ForCausalLM")(config).save_pretrained(tmp_path / "model")
    router = {"router_aux_loss_coef": 0.01} if kind == "Qwen3Moe" else {}
    trainer = make({"model": str(tmp_path / "model")}, **router)
    trains(trainer)
    assert any("aux_loss" in entry for entry in trainer.state.log_history) is (kind == "Qwen3Moe")
    assert "eval_aux_loss" not in trainer.evaluate(a_set(HELD_OUT))


def test_a_model_keeps_its_type(make: Callable[..., Any]) -> None:
    import torch

    trainer = make(model_init_kwargs={"dtype": "bfloat16"})
    trainer.train()
    assert {weight.dtype for weight in trainer.model.parameters()} == {torch.bfloat16}
    assert math.isfinite(trainer.evaluate(a_set(HELD_OUT))["eval_loss"])


@pytest.mark.parametrize("sync", [False, True])
def test_the_reference_model_is_only_changed_when_synchronised(make: Callable[..., Any], sync: bool) -> None:
    trainer = make(sync_ref_model=sync, ref_model_sync_steps=1, ref_model_mixup_alpha=0.5)
    before = weights(trainer.ref_model)
    trains(trainer)
    assert changed(before, trainer.ref_model) == (set(before) if sync else set())


def test_an_explicit_reference_model_is_used(make: Callable[..., Any], tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    other = AutoModelForCausalLM.from_pretrained(tiny_model.save_tiny_model(tmp_path / "other", seed=5))
    trainer = make({"ref_model": other, "eval_dataset": a_set(HELD_OUT)})
    before = weights(other)
    assert trainer.evaluate()["eval_rewards/margins"] != 0, "policy and reference differ from the start"
    trainer.train()
    assert changed(before, trainer.ref_model) == set()


# Adapters


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("precompute", [False, True])
def test_only_the_adapter_is_trained(make: Callable[..., Any], precompute: bool, checkpointing: bool) -> None:
    from peft import LoraConfig

    trainer = make(
        {"peft_config": LoraConfig(r=4, target_modules="all-linear"), "eval_dataset": a_set(HELD_OUT)},
        precompute_ref_log_probs=precompute,
        activation_checkpointing=checkpointing,
    )
    trains(trainer, lambda name: "lora_" in name)
    assert trainer.state.log_history[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert trainer.evaluate()["eval_loss"] != pytest.approx(math.log(2), abs=1e-3)


def test_an_adapted_model_keeps_its_adapter_as_reference(make: Callable[..., Any], model: Path) -> None:
    """Trained on with no configuration of its own, as TRL has it: the first loss is ln 2."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(model), LoraConfig(r=4, init_lora_weights=False))
    trainer = make({"model": adapted, "eval_dataset": a_set(HELD_OUT)})
    assert trainer.evaluate()["eval_loss"] == pytest.approx(math.log(2), abs=1e-6)
    before = weights(trainer.model)
    trainer.train()
    moved = changed(before, trainer.model)
    assert moved
    assert all("lora_" in name and ".ref." not in name for name in moved)
    assert not torch.equal(torch.tensor(trainer.evaluate()["eval_loss"]), torch.tensor(math.log(2)))


@pytest.mark.parametrize("adapter", [False, True])
def test_a_trained_model_is_tagged(make: Callable[..., Any], adapter: bool) -> None:
    from peft import LoraConfig

    trainer = make({"peft_config": LoraConfig(r=4)} if adapter else {})
    assert {"dpo", "trl"} <= set(trainer.model.model_tags)


# Validation


@pytest.mark.parametrize("precompute", [False, True])
@pytest.mark.parametrize("kind", SETS)
def test_a_set_is_validated_whatever_its_kind(make: Callable[..., Any], kind: str, precompute: bool) -> None:
    """Given when it is asked for, and not tokenized yet."""
    trainer = make(precompute_ref_log_probs=precompute)
    held_out = SETS[kind](a_set(HELD_OUT))
    if precompute and "terable" in kind:
        with pytest.raises(ValueError, match=r"precompute_ref_log_probs.*not supported with IterableDataset"):
            trainer.evaluate(held_out)
        return
    found = trainer.evaluate(held_out)
    for prefix in ("eval_one", "eval_two") if "ict" in kind else ("eval",):
        assert found[f"{prefix}_loss"] == pytest.approx(math.log(2), abs=1e-6)
        assert found[f"{prefix}_rewards/margins"] == pytest.approx(0, abs=1e-5)
        assert found[f"{prefix}_logps/chosen"] < 0
    if "ict" in kind:
        assert found["eval_one_logps/chosen"] != found["eval_two_logps/chosen"], "each set has its own metrics"


@pytest.mark.parametrize("kind", [*SETS, "none"])
def test_a_trainer_is_made_with_any_kind_of_set(make: Callable[..., Any], kind: str) -> None:
    held_out = None if kind == "none" else SETS[kind](a_set(HELD_OUT))
    trainer = make({"eval_dataset": held_out})
    if kind == "none":
        assert trainer.eval_dataset is None
    else:
        sets = list(trainer.eval_dataset.values()) if "ict" in kind else [trainer.eval_dataset]
        assert all({"prompt_ids", "chosen_ids", "rejected_ids"} <= next(iter(one)).keys() for one in sets)


@pytest.mark.parametrize("kind", ["a set", "a DatasetDict", "a dict of sets"])
def test_stored_references_serve_after_training(make: Callable[..., Any], kind: str) -> None:
    trainer = make({"eval_dataset": SETS[kind](a_set(HELD_OUT))}, precompute_ref_log_probs=True)
    trainer.train()
    found = trainer.evaluate()
    for name in ("eval_one_loss", "eval_two_loss") if "ict" in kind else ("eval_loss",):
        assert abs(found[name] - math.log(2)) > 1e-3, "the reference would be the trained model"


def test_references_cannot_be_computed_after_training(make: Callable[..., Any]) -> None:
    """The whole model is trained, so nothing is left of the reference."""
    trainer = make(precompute_ref_log_probs=True)
    assert trainer.evaluate(a_set(HELD_OUT))["eval_loss"] == pytest.approx(math.log(2), abs=1e-6)
    trainer.train()
    with pytest.raises(ValueError, match="Cannot compute reference log-probs"):
        trainer.evaluate(a_set(HELD_OUT))


@pytest.mark.parametrize("several", [False, True])
def test_training_validates_when_it_is_due(make: Callable[..., Any], several: bool) -> None:
    held_out = a_set(HELD_OUT)
    trainer = make(
        {"eval_dataset": {"one": held_out, "two": held_out} if several else held_out},
        eval_strategy="steps",
        eval_steps=1,
    )
    trainer.train()
    for name in ("eval_one_loss", "eval_two_loss") if several else ("eval_loss",):
        assert [entry["step"] for entry in trainer.state.log_history if name in entry] == [1, 2]


def test_training_does_not_notice_validation(make: Callable[..., Any]) -> None:
    losses = []
    for arguments in ({}, {"eval_strategy": "steps", "eval_steps": 1}):
        trainer = make({"eval_dataset": a_set(HELD_OUT)}, max_steps=3, **arguments)
        trainer.train()
        losses.append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
    assert losses[0] == losses[1]


# Data


@pytest.mark.parametrize("implicit", [False, True])
@pytest.mark.parametrize("chat", [False, True])
def test_each_format_of_data_is_trained_on(make: Callable[..., Any], chat: bool, implicit: bool) -> None:
    rows = tiny_model.chat_pairs(8) if chat else tiny_model.text_pairs(8)
    if implicit:
        space: Any = [] if chat else " "
        rows = [{side: row["prompt"] + space + row[side] for side in ("chosen", "rejected")} for row in rows]
    trains(make({"train_dataset": a_set(rows)}))


def test_rows_may_have_template_arguments_of_their_own(make: Callable[..., Any], model: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.chat_template = tokenizer.chat_template.replace(
        "message['role']", "(message['role'] | upper if loud else message['role'])"
    )
    rows = [row | {"chat_template_kwargs": {"loud": i % 2 == 1}} for i, row in enumerate(tiny_model.chat_pairs(8))]
    trainer = make({"train_dataset": a_set(rows), "processing_class": tokenizer})
    for i, start in enumerate(("<|im_start|>user", "<|im_start|>USER")):
        assert tokenizer.decode(trainer.train_dataset[i]["prompt_ids"]).startswith(start)
    trains(trainer)


def test_rows_whose_prompt_fills_the_length_are_dropped(make: Callable[..., Any]) -> None:
    rows = [*ROWS, {"prompt": "what " * 100, "chosen": "yes", "rejected": "no"}]
    assert len(make({"train_dataset": a_set(rows)}).train_dataset) == len(ROWS)


@pytest.mark.parametrize("mode", ["keep_start", "keep_end"])
def test_long_responses_are_cut(make: Callable[..., Any], mode: str) -> None:
    rows = [row | {"chosen": row["chosen"] + " yes" * 50} for row in ROWS]
    trainer = make({"train_dataset": a_set(rows)}, truncation_mode=mode, max_length=48)
    longest = max(batch["input_ids"].shape[1] for batch in trainer.get_train_dataloader())
    assert longest == 48
    trains(trainer)


def test_an_iterable_set_is_trained_on(make: Callable[..., Any]) -> None:
    trains(make({"train_dataset": a_set(ROWS).to_iterable_dataset()}))


@pytest.mark.parametrize("which", ["train_dataset", "eval_dataset"])
def test_an_iterable_set_has_no_stored_references(make: Callable[..., Any], which: str) -> None:
    with pytest.raises(ValueError, match=r"precompute_ref_log_probs.*not supported with IterableDataset"):
        make({which: a_set(ROWS).to_iterable_dataset()}, precompute_ref_log_probs=True)


def test_there_must_be_something_to_train_on(make: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match="`train_dataset` is required"):
        make({"train_dataset": None})


# Objectives


@pytest.mark.parametrize("dpo", OBJECTIVES, ids=lambda dpo: f"{'+'.join(dpo.loss)}-{dpo.label_smoothing:g}")
def test_validation_is_what_trl_computes_for_one_batch(make: Callable[..., Any], dpo: Dpo) -> None:
    """After a step, on all rows in one batch of TRL's own: what is trained on is what is validated."""
    import torch

    loss_type, loss_weights = decide_losses(dpo)
    trainer = make(
        {"eval_dataset": a_set(HELD_OUT)},
        loss_type=list(loss_type),
        loss_weights=list(loss_weights),
        beta=dpo.beta,
        label_smoothing=dpo.label_smoothing,
        max_steps=1,
        learning_rate=1e-2,
    )
    trains(trainer)
    batch = trainer.data_collator(list(trainer.eval_dataset))
    trainer.model.eval()
    with torch.no_grad():
        whole = trainer.compute_loss(trainer.model, batch).item()
    trls = {f"eval_{name}": values[-1] for name, values in trainer._metrics["eval"].items() if name != "num_tokens"}
    trainer._metrics["eval"].clear()
    found = trainer.evaluate()
    assert found["eval_loss"] == pytest.approx(whole, rel=2e-5)
    assert {name: found[name] for name in trls} == pytest.approx(trls, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize(
    "arguments",
    [
        {"use_weighting": True},
        {"ld_alpha": 0.5},
        {"f_divergence_type": "js_divergence"},
        {"loss_type": ["discopop"], "discopop_tau": 0.1},
    ],
    ids=lambda arguments: next(iter(arguments)),
)
def test_an_objective_that_validation_does_not_know_is_refused(
    make: Callable[..., Any], arguments: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=rf"validation does not compute {list(arguments)[-1]}"):
        make(**arguments)


def test_metrics_of_logits_are_refused(make: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match="validation does not compute compute_metrics"):
        make({"compute_metrics": lambda _: {}})
