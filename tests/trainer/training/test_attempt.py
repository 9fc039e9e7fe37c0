"""Training inside this process: one rank, DeepSpeed on CPU, a tiny model."""

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from dporun_api.v1alpha1.reasons import Reason
from dporun_testing import tiny_model, training
from dporun_testing.training import a_config, attempt
from dporun_trainer.errors import RunError
from dporun_trainer.progress import ProgressFile
from dporun_trainer.run_folder import RunFolder, room, running_totals
from dporun_trainer.run_folder.checkpoints import Checkpoints
from dporun_trainer.run_folder.prepared import ModelFacts

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("single_process")]

NO_DROPOUT = {"dropout": 0.0}


@pytest.fixture(scope="module")
def full(model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A run from start to end, without dropout: its directory and its trainer."""
    root = tmp_path_factory.mktemp("full")
    config = a_config("full", lora=NO_DROPOUT)
    directory = training.prepare(config, root, model)
    return directory, attempt(config, directory)


def test_the_loss_before_the_first_step_is_that_of_a_coin(full: tuple[Path, Any]) -> None:
    first = training.history(full[0])[0]
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-7)
    assert first["rewards/margins"] == 0


def test_plain_trl_with_the_same_seed_gives_the_same_numbers(
    full: tuple[Path, Any], model: Path, tmp_path: Path
) -> None:
    import torch
    from datasets import load_dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    directory, ours = full
    files = {name: str(directory / "inputs" / f"{name}.jsonl") for name in ("train", "validation")}
    data = load_dataset("json", data_files=files, cache_dir=str(tmp_path / "cache"))
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("ACCELERATE_USE_DEEPSPEED")
        plain = DPOTrainer(
            model=AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32),
            args=DPOConfig(
                output_dir=str(tmp_path),
                num_train_epochs=2,
                per_device_train_batch_size=2,
                gradient_accumulation_steps=2,
                learning_rate=5e-3,
                lr_scheduler_type="cosine",
                warmup_steps=1,
                bf16=False,
                gradient_checkpointing=False,
                use_cpu=True,
                report_to="none",
                save_strategy="no",
                logging_steps=1,
                max_length=128,
                seed=42,
            ),
            train_dataset=data["train"],
            processing_class=AutoTokenizer.from_pretrained(model),
            peft_config=LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"),
        )
        plain.train()
    theirs = [entry["loss"] for entry in plain.state.log_history if "loss" in entry]
    assert [entry["loss"] for entry in training.history(directory) if "loss" in entry] == pytest.approx(
        theirs, abs=1e-5
    )
    weights = dict(plain.model.named_parameters())
    for name, weight in ours.model.named_parameters():
        assert torch.allclose(weight, weights[name].to(weight.device), atol=1e-5), name


def test_every_file_of_the_specification_is_there(full: tuple[Path, Any]) -> None:
    directory, _ = full
    metrics = json.loads((directory / "training_metrics.json").read_text())
    assert metrics.keys() >= {"train_loss", "eval_loss", "train_runtime", "train_samples_per_second", "epoch"}
    assert metrics["epoch"] == 2
    record = json.loads((directory / "training_config.json").read_text())
    assert record["training"]["precision"] == "fp32"
    assert record["dpo"]["precompute_ref_log_probs"] is True
    assert record["dataset"]["fingerprint"] == "f" * 64
    assert record["packages"].keys() >= {"torch", "trl", "peft", "transformers", "deepspeed", "accelerate"}
    assert record["requested"]["training"]["precision"] == "auto"


def test_the_best_checkpoint_becomes_final_and_the_others_go(full: tuple[Path, Any]) -> None:
    directory, _ = full
    (best,) = Checkpoints(directory).complete()
    losses = {entry["step"]: entry["eval_loss"] for entry in training.history(directory) if "eval_loss" in entry}
    assert losses.keys() == {4, 8}
    assert best.step == min(losses, key=losses.__getitem__)
    assert best.marker.eval_loss == losses[best.step]
    assert training.adapter_difference(directory / "final", best.path) == 0
    assert {"adapter_config.json", "tokenizer.json"} <= {path.name for path in (directory / "final").iterdir()}


def test_a_checkpoint_holds_no_frozen_weight(full: tuple[Path, Any]) -> None:
    """And all that resuming needs."""
    import torch
    from safetensors import safe_open

    directory, _ = full
    (best,) = Checkpoints(directory).complete()
    with safe_open(best.path / "adapter_model.safetensors", "pt") as file:
        assert all("lora_" in name for name in file.keys())  # noqa: SIM118  not a mapping
    (state,) = best.path.glob("global_step*/mp_rank_00_model_states.pt")
    module = torch.load(state, weights_only=False)["module"]
    assert module
    assert all("lora_" in name for name in module)
    assert {"scheduler.pt", "rng_state.pth", "trainer_state.json", "ledger_0.json"} <= best.marker.files.keys()
    assert any("optim_states" in name for name in best.marker.files)


def test_saving_copies_only_trainable_weights(full: tuple[Path, Any], tmp_path: Path) -> None:
    from transformers import Trainer

    _, trainer = full
    given: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_save", lambda _self, _folder, state_dict: given.update(state_dict))
        patch.setattr(trainer.accelerator, "get_state_dict", lambda *_: pytest.fail("copied the whole model"))
        trainer.save_model(str(tmp_path))
    trainable = sum(weight.numel() for weight in trainer.model.parameters() if weight.requires_grad)
    assert sum(weight.numel() for weight in given.values()) == trainable


def test_saving_needs_no_memory_for_a_copy_of_the_model(tmp_path: Path) -> None:
    """The kernel's own high-water mark of this process, set back before the checkpoint is saved."""
    large = tiny_model.save_tiny_model(tmp_path / "model", hidden_size=768, layers=4)
    config = a_config("large", training={"epochs": 0.25, "gradient_accumulation_steps": 1})
    directory = training.prepare(config, tmp_path, large, train=8, validation=2)
    needed: list[int] = []

    def measure(trainer: Any, _: Any) -> None:
        save = trainer._save_checkpoint

        def measured(*arguments: Any) -> None:
            Path("/proc/self/clear_refs").write_text("5")
            before = _memory("VmRSS")
            save(*arguments)
            needed.append(_memory("VmHWM") - before)

        trainer._save_checkpoint = measured

    trainer = attempt(config, directory, on_trainer=measure)
    (saved,) = Checkpoints(directory).complete()
    trainable = sum(weight.numel() for weight in trainer.model.parameters() if weight.requires_grad)
    assert room.estimate(trainable) <= saved.bytes < 1.5 * room.estimate(trainable)
    size = sum(weight.numel() * weight.element_size() for weight in trainer.model.parameters())
    assert size > 64 * 2**20
    assert needed
    assert max(needed) < size / 10


def _memory(name: str) -> int:
    """Bytes of this process by a line of /proc/self/status."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024


def test_progress_tells_where_training_ended(full: tuple[Path, Any]) -> None:
    progress = ProgressFile(full[0] / "progress.json").read()
    assert (progress.step, progress.total_steps, progress.epoch) == (8, 8, 2)
    assert progress.percent == pytest.approx(90)
    assert progress.metrics.eval_loss is not None
    assert progress.metrics.reward_margin is not None
    assert progress.best_checkpoint is not None
    assert progress.health is not None
    assert progress.samples_per_second


def _validations(directory: Path) -> list[dict[str, Any]]:
    return [entry for entry in training.history(directory) if "eval_loss" in entry]


def test_lora_dropout_applies_and_the_base_has_none(model: Path, tmp_path: Path) -> None:
    import torch

    folder = tmp_path / "model"
    config_json = json.loads((model / "config.json").read_text()) | {"attention_dropout": 0.5}
    folder.mkdir()
    for file in model.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "config.json").write_text(json.dumps(config_json))
    config = a_config("dropout", lora={"dropout": 0.3}, training={"epochs": 0.25})
    seen = []

    def look(trainer: Any, _: Any) -> None:
        modules = [module for module in trainer.model.modules() if isinstance(module, torch.nn.Dropout)]
        seen.extend(module.p for module in modules)
        trainer.model.train()
        ids = torch.tensor([trainer.train_dataset[0]["prompt_ids"]])
        with torch.no_grad(), trainer.model.disable_adapter():
            first, second = trainer.model(ids).logits, trainer.model(ids).logits
        assert torch.equal(first, second)

    attempt(config, training.prepare(config, tmp_path, folder), on_trainer=look)
    assert set(seen) == {0.3}


def test_an_earlier_adapter_is_the_start_not_the_reference(full: tuple[Path, Any], model: Path, tmp_path: Path) -> None:
    """The base stays the reference."""
    adapter = full[0] / "final"
    config = a_config("second", lora=NO_DROPOUT, training={"epochs": 0.25})
    directory = training.prepare(config, tmp_path, model, adapter=adapter)
    attempt(config, directory)
    first = training.history(directory)[0]
    assert first["rewards/margins"] > 0.01, "the reference would be the adapter itself"
    assert first["loss"] < math.log(2)


def test_an_adapter_of_another_rank_is_refused(full: tuple[Path, Any], model: Path, tmp_path: Path) -> None:
    config = a_config("other", lora={"rank": 8})
    directory = training.prepare(config, tmp_path, model, adapter=full[0] / "final")
    with pytest.raises(RunError, match=r"lora.rank is 8, but the adapter in .*/final has 4") as raised:
        attempt(config, directory)
    assert raised.value.exit_code == 64


def test_an_adapter_of_other_layers_is_refused(full: tuple[Path, Any], model: Path, tmp_path: Path) -> None:
    adapter = shutil.copytree(full[0] / "final", tmp_path / "adapter")
    config = json.loads((adapter / "adapter_config.json").read_text())
    weights = load_file(adapter / "adapter_model.safetensors")
    queries = {name: weight for name, weight in weights.items() if "q_proj" in name}
    assert 0 < len(queries) < len(weights)
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"target_modules": ["q_proj"]}))
    save_file(queries, adapter / "adapter_model.safetensors")
    directory = training.prepare(a_config("layers"), tmp_path, model, adapter=adapter)
    with pytest.raises(RunError, match=f"lacks {len(weights) - len(queries)} of the weights that this run trains"):
        attempt(a_config("layers"), directory)


def test_other_rows_than_prepare_counted_are_refused(model: Path, tmp_path: Path) -> None:
    """The steps of the plan would not be those of the run, and its last one not be saved."""
    config = a_config("rows")
    directory = training.prepare(config, tmp_path, model)
    training.write_pairs(RunFolder(directory), model, tiny_model.chat_pairs(15), tiny_model.chat_pairs(6, seed=1))
    with pytest.raises(RunError, match="prepare counted 16 training and 6 validation rows, but there are 15 and 6"):
        attempt(config, directory)


def test_tokens_of_another_tokenizer_are_refused(model: Path, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path / "model")
    config = a_config("tokenizer")
    directory = training.prepare(config, tmp_path, tmp_path / "model")
    (tmp_path / "model" / "chat_template.jinja").write_text("{{ messages }}")
    with pytest.raises(RunError, match="was not prepared with the tokenizer") as raised:
        attempt(config, directory)
    assert raised.value.reason is Reason.NOT_PREPARED


def test_a_wrong_number_of_processes_is_refused(model: Path, tmp_path: Path) -> None:
    config = a_config("two", topology={"processes_per_node": 2})
    with pytest.raises(RunError, match="1 training processes were started"):
        attempt(config, training.prepare(config, tmp_path, model))


def poison(trainer: Any, steps: set[int]) -> None:
    """Make the loss of some optimizer steps NaN."""
    compute = trainer.compute_loss

    def poisoned(*arguments: Any, **named: Any) -> Any:
        loss = compute(*arguments, **named)
        return loss * math.nan if trainer.model.training and trainer.state.global_step + 1 in steps else loss

    trainer.compute_loss = poisoned


def test_loss_that_stays_not_a_number_stops_the_run(model: Path, tmp_path: Path) -> None:
    config = a_config("nan")
    directory = training.prepare(config, tmp_path, model)
    with pytest.raises(RunError, match="steps 5 to 7") as raised:
        attempt(config, directory, on_trainer=lambda trainer, _: poison(trainer, {5, 6, 7, 8}))
    assert raised.value.reason is Reason.NON_FINITE_LOSS
    assert raised.value.exit_code == 67
    assert [one.step for one in Checkpoints(directory).complete()] == [4]
    assert training.history(directory)[-1]["loss"] == "NaN"


def test_a_single_bad_step_is_counted_and_survived(model: Path, tmp_path: Path) -> None:
    config = a_config("once")
    directory = training.prepare(config, tmp_path, model)
    attempt(config, directory, on_trainer=lambda trainer, _: poison(trainer, {2, 3}))
    metrics = json.loads((directory / "training_metrics.json").read_text())
    assert metrics["non_finite_steps"] == 2
    assert math.isfinite(metrics["eval_loss"])


def test_patience_ends_training(model: Path, tmp_path: Path) -> None:
    config = a_config("patience", training={"epochs": 6, "learning_rate": 1e-30, "early_stopping_patience": 2})
    directory = training.prepare(config, tmp_path, model)
    attempt(config, directory)
    assert [entry["step"] for entry in _validations(directory)] == [4, 8, 12]


def test_an_unstable_run_is_stopped_with_a_checkpoint(model: Path, tmp_path: Path) -> None:
    from dporun_api.results import Health, HealthState

    def diagnose(history: Sequence[Mapping[str, Any]], _model: ModelFacts) -> Health:
        return Health(state=HealthState.UNSTABLE if history[-1]["step"] >= 3 else HealthState.ON_TRACK)

    config = a_config("unstable", training={"stop_on_unstable": True})
    directory = training.prepare(config, tmp_path, model)
    attempt(config, directory, diagnose=diagnose)
    assert [one.step for one in Checkpoints(directory).complete()] == [3]
    assert (directory / "final" / "adapter_model.safetensors").is_file()


def test_checkpoints_every_so_many_steps(model: Path, tmp_path: Path) -> None:
    config = a_config("often", checkpoints={"every_steps": 3})
    directory = training.prepare(config, tmp_path, model)
    attempt(config, directory)
    assert [entry["step"] for entry in _validations(directory)] == [3, 4, 6, 8]


def test_the_ledger_of_a_checkpoint_counts_tokens(full: tuple[Path, Any]) -> None:
    directory, _ = full
    (best,) = Checkpoints(directory).complete()
    tokens = {entry["step"]: entry["num_tokens"] for entry in training.history(directory) if "num_tokens" in entry}
    assert running_totals.load(best.path, 0, 1).tokens == tokens[best.step]


@pytest.mark.parametrize(
    "change",
    [
        {"topology": {"deepspeed": {"zero_stage": 1}}},
        {"topology": {"deepspeed": {"offload_optimizer": True}}},
        {"training": {"gradient_checkpointing": "always"}},
        {"dpo": {"precompute_ref_log_probs": "never"}},
    ],
    ids=["stage 1", "offloaded optimizer", "checkpointing", "no precomputing"],
)
def test_how_it_is_computed_does_not_change_the_result(
    full: tuple[Path, Any], model: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    config = a_config("other", lora=NO_DROPOUT, **change)
    directory = training.prepare(config, tmp_path, model)
    attempt(config, directory)
    assert training.adapter_difference(directory / "final", full[0] / "final") < 1e-5


def test_bfloat16_trains(model: Path, tmp_path: Path) -> None:
    config = a_config("bf16", lora=NO_DROPOUT, training={"precision": "bf16"})
    directory = training.prepare(config, tmp_path, model)
    import torch

    told: list[str | None] = []
    trainer = attempt(
        config, directory, on_trainer=lambda *_: told.append(ProgressFile(directory / "progress.json").read().detail)
    )
    assert told == ["log-probabilities of the base, 1/11"], "it is said while they are computed, once a second"
    assert trainer.model_wrapped.optimizer.gradient_accumulation_dtype is torch.float32
    assert json.loads((directory / "training_config.json").read_text())["training"]["precision"] == "bf16"
    losses = [entry["loss"] for entry in training.history(directory) if "loss" in entry]
    assert losses[-1] < losses[0]
