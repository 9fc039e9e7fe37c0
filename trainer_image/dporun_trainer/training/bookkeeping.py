"""What training leaves behind: its configuration, its metrics, and the best adapter as ``final``."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dporun_api.run_config import Model
from dporun_trainer.run_folder.checkpoints import Checkpoint
from dporun_trainer.run_folder.final import save_final
from dporun_trainer.run_folder.prepared import Prepared
from dporun_trainer.run_folder.records import (
    RecordedDataset,
    RecordedDistribution,
    RecordedDpo,
    RecordedLora,
    RecordedTraining,
    TrainingMetrics,
    TrainingRecord,
)
from dporun_trainer.versions import package_versions

if TYPE_CHECKING:
    from dporun_trainer.training.trainer import RunTrainer


def begin(trainer: "RunTrainer", prepared: Prepared) -> None:
    """Clear what earlier attempts left torn, or all of it when this one starts again, and record the configuration."""
    folder = trainer.run.folder
    folder.checkpoints.discard_torn()
    if trainer.run.resumed is None:
        folder.checkpoints.discard_all()
        shutil.rmtree(folder.tensorboard, ignore_errors=True)
    folder.training_config.write(describe(trainer, prepared))


def describe(trainer: "RunTrainer", prepared: Prepared) -> TrainingRecord:
    """What really runs: effective values, versions and fingerprints, in the words of the libraries."""
    run, arguments, model = trainer.run, trainer.args, trainer.model
    lora = model.peft_config["default"]
    schedule = arguments.lr_scheduler_type.value
    return TrainingRecord(
        run=run.config.run.name,
        model=run.config.model.uri,
        model_revision=prepared.model_revision,
        image=run.config.image,
        seed=arguments.seed,
        dataset=RecordedDataset(
            train=run.config.dataset.train,
            validation=run.config.dataset.validation,
            train_rows=len(trainer.train_dataset),
            validation_rows=len(trainer.eval_dataset),
            fingerprint=prepared.dataset.fingerprint,
        ),
        dpo=RecordedDpo(
            beta=arguments.beta,
            loss_type=arguments.loss_type,
            loss_weights=arguments.loss_weights,
            label_smoothing=arguments.label_smoothing,
            max_length=arguments.max_length,
            precompute_ref_log_probs=arguments.precompute_ref_log_probs,
            router_aux_loss_coef=arguments.router_aux_loss_coef,
        ),
        lora=RecordedLora(
            r=lora.r,
            lora_alpha=lora.lora_alpha,
            lora_dropout=lora.lora_dropout,
            target_modules=tuple(sorted(lora.target_modules)),
            target_parameters=tuple(sorted(lora.target_parameters or ())),
            trainable_parameters=sum(weight.numel() for weight in model.parameters() if weight.requires_grad),
            starts_from=run.config.checkpoints.resume_from,
        ),
        training=RecordedTraining(
            num_train_epochs=arguments.num_train_epochs,
            steps=run.plan.schedule.steps,
            steps_per_epoch=run.plan.schedule.steps_per_epoch,
            per_device_train_batch_size=arguments.per_device_train_batch_size,
            gradient_accumulation_steps=arguments.gradient_accumulation_steps,
            effective_batch_size=run.config.effective_batch_size,
            learning_rate=arguments.learning_rate,
            lr_scheduler_type=schedule,
            warmup_steps=0 if schedule == "constant" else arguments.get_warmup_steps(run.plan.schedule.steps),
            optimizer=arguments.optim.value,
            weight_decay=arguments.weight_decay,
            max_grad_norm=arguments.max_grad_norm,
            precision=run.plan.precision,
            gradient_checkpointing=run.plan.gradient_checkpointing,
            logging_steps=run.plan.logging_steps,
            early_stopping_patience=run.config.training.early_stopping_patience,
            stop_on_unstable=run.config.training.stop_on_unstable,
        ),
        distributed=RecordedDistribution(
            world_size=trainer.accelerator.num_processes,
            nodes=run.config.topology.nodes,
            processes_per_node=run.config.topology.processes_per_node,
            zero_stage=run.config.topology.deepspeed.zero_stage,
            offload_optimizer=run.config.topology.deepspeed.offload_optimizer,
            device=run.machine.name,
        ),
        packages=package_versions(),
        requested=run.config,
    )


def finish(trainer: "RunTrainer") -> None:
    """Leave the best adapter in ``final`` and write the metrics, which say "done"; then delete the other checkpoints.

    Until the run is done the newest checkpoint stays: an attempt that resumes from the best one would train again.
    """
    folder = trainer.run.folder
    prepared = folder.load_prepared()
    base = hub_base(trainer.run.config.model, prepared.model_revision)
    best = save_final(folder, base, Path(prepared.model_path))
    totals = metrics(trainer.state.log_history, best)
    attempts = {"attempts": trainer.earlier.attempts, "non_finite_steps": trainer.non_finite_steps}
    folder.training_metrics.write(totals.model_copy(update=attempts))
    folder.checkpoints.prune(running=False)


def metrics(history: Sequence[Mapping[str, Any]], best: Checkpoint | None) -> TrainingMetrics:
    """Final metrics of a run: totals over all attempts, and the validation loss of the best checkpoint.

    Raises:
        ValueError: training did not finish, so its log has no totals.

    """
    totals = next((entry for entry in reversed(history) if "train_runtime" in entry), None)
    if totals is None:
        raise ValueError("the log has no totals")
    names = ("train_loss", "train_runtime", "train_samples_per_second", "train_steps_per_second", "total_flos", "epoch")
    found = {name: totals[name] for name in names if name in totals}
    tokens = [entry["num_tokens"] for entry in history if "num_tokens" in entry]
    marker = best.marker if best else None
    return TrainingMetrics(
        **found,
        eval_loss=marker.eval_loss if marker else None,
        best_step=marker.step if marker else None,
        best_epoch=marker.epoch if marker else None,
        steps=totals["step"],
        num_tokens=int(tokens[-1]) if tokens else None,
    )


def hub_base(model: Model, revision: str | None) -> dict[str, str | None]:
    """Name the base model as PEFT's adapter_config.json does, where it is on the Hub: there, anybody can find it."""
    if not model.uri.startswith("hf://"):
        return {}
    return {"base_model_name_or_path": model.uri.removeprefix("hf://"), "revision": revision}
