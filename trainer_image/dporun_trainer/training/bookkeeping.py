"""What training leaves behind: its configuration, its log, its metrics, and the best adapter as ``final``."""

import math
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dporun_api import run_folder as layout
from dporun_api.files import read_json, sync_folder, write_json
from dporun_api.run_config import Model
from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer.errors import RunError
from dporun_trainer.run_folder import checkpoints
from dporun_trainer.run_folder.checkpoints import Checkpoint
from dporun_trainer.run_folder.prepared import Prepared
from dporun_trainer.versions import package_versions

if TYPE_CHECKING:
    from dporun_trainer.training.trainer import RunTrainer

_RESULT_FILES = ("adapter_", "tokenizer", "special_tokens", "added_tokens", "chat_template", "vocab", "merges")
"""How the names of the files begin that make up an adapter with its tokenizer."""


def write_history(directory: Path, history: Sequence[Mapping[str, Any]]) -> None:
    """Write log_history.json; JSON knows no NaN, so what is not a number is written as a word."""
    write_json(
        directory / layout.LOG_HISTORY, [{name: plain(value) for name, value in entry.items()} for entry in history]
    )


def plain(value: Any) -> Any:
    """``value`` as JSON can hold it: NaN and the infinities as "NaN", "Infinity" and "-Infinity"."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def begin(trainer: "RunTrainer", prepared: Prepared, checkpoint: Checkpoint | None) -> None:
    """Clear what earlier attempts left torn, or all of it when this one starts again, and record the configuration."""
    directory = trainer.run.directory
    for path in checkpoints.torn(directory):
        checkpoints.discard(path)
    if checkpoint is None:
        for path in checkpoints.folders(directory).values():
            checkpoints.discard(path)
        shutil.rmtree(directory / layout.RUNS, ignore_errors=True)
    write_json(directory / layout.TRAINING_CONFIG, describe(trainer, prepared))


def describe(trainer: "RunTrainer", prepared: Prepared) -> dict[str, Any]:
    """What really runs: effective values, versions and fingerprints, in the words of the libraries."""
    run, arguments, model = trainer.run, trainer.args, trainer.model
    lora = model.peft_config["default"]
    schedule = arguments.lr_scheduler_type.value
    return {
        "run": run.config.run.name,
        "model": run.config.model.uri,
        "model_revision": prepared.model_revision,
        "image": run.config.image,
        "seed": arguments.seed,
        "dataset": {
            "train": run.config.dataset.train,
            "validation": run.config.dataset.validation,
            "train_rows": len(trainer.train_dataset),
            "validation_rows": len(trainer.eval_dataset),
            "fingerprint": prepared.dataset.fingerprint,
        },
        "dpo": {
            "beta": arguments.beta,
            "loss_type": arguments.loss_type,
            "loss_weights": arguments.loss_weights,
            "label_smoothing": arguments.label_smoothing,
            "max_length": arguments.max_length,
            "precompute_ref_log_probs": arguments.precompute_ref_log_probs,
        },
        "lora": {
            "r": lora.r,
            "lora_alpha": lora.lora_alpha,
            "lora_dropout": lora.lora_dropout,
            "target_modules": sorted(lora.target_modules),
            "trainable_parameters": sum(weight.numel() for weight in model.parameters() if weight.requires_grad),
            "starts_from": run.config.checkpoints.resume_from,
        },
        "training": {
            "num_train_epochs": arguments.num_train_epochs,
            "steps": run.plan.schedule.steps,
            "steps_per_epoch": run.plan.schedule.steps_per_epoch,
            "per_device_train_batch_size": arguments.per_device_train_batch_size,
            "gradient_accumulation_steps": arguments.gradient_accumulation_steps,
            "effective_batch_size": run.config.effective_batch_size,
            "learning_rate": arguments.learning_rate,
            "lr_scheduler_type": schedule,
            "warmup_steps": 0 if schedule == "constant" else arguments.get_warmup_steps(run.plan.schedule.steps),
            "optimizer": arguments.optim.value,
            "weight_decay": arguments.weight_decay,
            "max_grad_norm": arguments.max_grad_norm,
            "precision": run.plan.precision,
            "gradient_checkpointing": run.plan.gradient_checkpointing,
            "logging_steps": run.plan.logging_steps,
            "early_stopping_patience": run.config.training.early_stopping_patience,
            "stop_on_unstable": run.config.training.stop_on_unstable,
        },
        "distributed": {
            "world_size": trainer.accelerator.num_processes,
            "nodes": run.config.topology.nodes,
            "processes_per_node": run.config.topology.processes_per_node,
            "zero_stage": run.config.topology.deepspeed.zero_stage,
            "offload_optimizer": run.config.topology.deepspeed.offload_optimizer,
            "device": run.machine.name,
        },
        "packages": package_versions(),
        "requested": run.config.model_dump(mode="json", by_alias=True),
    }


def finish(trainer: "RunTrainer") -> None:
    """Leave the best adapter in ``final`` and write the metrics, which say "done"; then delete the other checkpoints.

    Until the run is done the newest checkpoint stays: an attempt that goes on from the best one would train again.
    """
    directory, history = trainer.run.directory, trainer.state.log_history
    best = save_final(directory, hub_base(trainer.run.config.model, Prepared.load(directory).model_revision))
    write_history(directory, history)
    totals = metrics(history, best)
    attempts = {"attempts": trainer.earlier.attempts, "non_finite_steps": trainer.non_finite_steps}
    write_json(directory / layout.TRAINING_METRICS, totals | attempts)
    checkpoints.prune(directory, running=False)


def is_finished(directory: Path) -> bool:
    """Whether an earlier attempt has finished training."""
    return (directory / layout.TRAINING_METRICS).is_file() and (directory / layout.FINAL).is_dir()


def metrics(history: Sequence[Mapping[str, Any]], best: Checkpoint | None) -> dict[str, Any]:
    """Final metrics of a run: totals over all attempts, and the validation loss of the best checkpoint.

    Raises:
        ValueError: training did not finish, so its log has no totals.

    """
    totals = next((entry for entry in reversed(history) if "train_runtime" in entry), None)
    if totals is None:
        raise ValueError("the log has no totals")
    names = ("train_loss", "train_runtime", "train_samples_per_second", "train_steps_per_second", "total_flos", "epoch")
    found = {name: plain(totals[name]) for name in names if name in totals}
    tokens = [entry["num_tokens"] for entry in history if "num_tokens" in entry]
    marker = best.marker if best else None
    return {
        **found,
        "eval_loss": marker.eval_loss if marker else None,
        "best_step": marker.step if marker else None,
        "best_epoch": marker.epoch if marker else None,
        "steps": totals["step"],
        "num_tokens": int(tokens[-1]) if tokens else None,
    }


def hub_base(model: Model, revision: str | None) -> dict[str, str | None]:
    """Name the base model as PEFT's adapter_config.json does, where it is on the Hub: there, anybody can find it."""
    if not model.uri.startswith("hf://"):
        return {}
    return {"base_model_name_or_path": model.uri.removeprefix("hf://"), "revision": revision}


def save_final(directory: Path, base: Mapping[str, str | None]) -> Checkpoint:
    """Make the best checkpoint's adapter the run's result: ``final`` appears whole or not at all.

    Args:
        directory: of the run.
        base: what adapter_config.json says of the base model instead of its path in this pod.

    Raises:
        RunError: there is no complete checkpoint.

    """
    best = checkpoints.best(checkpoints.complete(directory))
    if best is None:
        raise RunError(Reason.TRAINER_ERROR, f"training ended without a complete checkpoint in {directory}")
    final, temporary = directory / layout.FINAL, directory / f".{layout.FINAL}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    for file in best.path.iterdir():
        if file.is_file() and file.name.startswith(_RESULT_FILES):
            shutil.copy2(file, temporary / file.name)
            _sync(temporary / file.name)
    adapter = temporary / "adapter_config.json"
    write_json(adapter, read_json(adapter) | dict(base))
    shutil.rmtree(final, ignore_errors=True)
    temporary.rename(final)
    sync_folder(directory)
    return best


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
