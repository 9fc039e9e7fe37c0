"""From what a RunConfig asks to what training really does. Pure; arguments of the libraries are plain values."""

import math
from dataclasses import dataclass
from typing import Any, Literal

from dporun_api.run_config import Dpo, RunConfig, Switch
from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer.errors import RunError
from dporun_trainer.progress import Plan
from dporun_trainer.training.memory import Shape, needs_checkpointing

Precision = Literal["bf16", "fp16", "fp32"]

LOG_ENTRIES = 100
"""About so many log entries a run has when training.loggingSteps is absent."""

_BUCKET = 50_000_000
"""Elements of DeepSpeed's buckets: its default reserves a gigabyte for adapters of some megabytes."""
_SMOOTHED_LOSSES = {"sigmoid", "robust", "exo_pair", "aot", "aot_unpaired"}


@dataclass(frozen=True)
class Machine:
    """What a training process runs on.

    Attributes:
        cuda: whether it has a CUDA device; else it computes on the CPU.
        bf16: whether the device computes in bfloat16.
        memory: bytes that one process can use.
        name: of the device, for people.

    """

    cuda: bool
    bf16: bool
    memory: int
    name: str


@dataclass(frozen=True)
class Settings:
    """Effective values: every "auto" decided.

    Attributes:
        precision: of the forward and backward pass.
        checkpointing: whether activations are recomputed.
        precompute: whether the base model's log-probabilities are computed once, before training.
        loss_type: loss types of TRL's DPOTrainer.
        loss_weights: their weights.
        steps_per_epoch: optimizer steps of one pass over the training data.
        logging_steps: optimizer steps between log entries.
        plan: what training has to do in all.

    """

    precision: Precision
    checkpointing: bool
    precompute: bool
    loss_type: tuple[str, ...]
    loss_weights: tuple[float, ...]
    steps_per_epoch: int
    logging_steps: int
    plan: Plan


def decide(config: RunConfig, machine: Machine, shape: Shape, *, train_rows: int, validation_rows: int) -> Settings:
    """Decide every setting that the configuration leaves open.

    Args:
        config: what the user asked.
        machine: what the processes run on.
        shape: sizes of model and batch, for the memory estimate; its value_bytes are set here.
        train_rows: preference pairs to train on.
        validation_rows: preference pairs held out.

    Raises:
        RunError: the configuration asks for something that cannot be done here.

    """
    precision = decide_precision(config.training.precision, machine)
    shape = Shape(**{**vars(shape), "value_bytes": 4 if precision == "fp32" else 2})
    loss_type, loss_weights = decide_losses(config.dpo)
    plan, per_epoch = decide_plan(config, train_rows=train_rows, validation_rows=validation_rows)
    saved = config.training.epochs * train_rows + plan.evaluations * validation_rows > train_rows + validation_rows
    return Settings(
        precision=precision,
        checkpointing=_switch(config.training.gradient_checkpointing, auto=needs_checkpointing(shape, machine.memory)),
        precompute=_switch(config.dpo.precompute_ref_log_probs, auto=saved),
        loss_type=loss_type,
        loss_weights=loss_weights,
        steps_per_epoch=per_epoch,
        logging_steps=config.training.logging_steps or max(1, plan.steps // LOG_ENTRIES),
        plan=plan,
    )


def decide_precision(requested: str, machine: Machine) -> Precision:
    """Choose the arithmetic: bf16 where the GPU has it, else fp16, and fp32 on CPU.

    Raises:
        RunError: the machine cannot compute in the requested one.

    """
    if requested == "auto":
        return "fp32" if not machine.cuda else "bf16" if machine.bf16 else "fp16"
    if requested == "fp16" and not machine.cuda:
        message = "training.precision is fp16, but this process has no GPU, and DeepSpeed has no fp16 on CPU"
        raise RunError(Reason.INVALID_SPEC, message, hint="Set training.precision: auto.")
    if requested == "bf16" and not machine.bf16:
        message = f"training.precision is bf16, but {machine.name} does not compute in bfloat16"
        raise RunError(Reason.INVALID_SPEC, message, hint="Set training.precision: auto, which takes fp16.")
    return {"bf16": "bf16", "fp16": "fp16", "fp32": "fp32"}[requested]  # type: ignore[return-value]


def decide_losses(dpo: Dpo) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """Express the objective in TRL's loss types and weights.

    TRL 1.16 leaves labelSmoothing out of its sigmoid loss. Conservative DPO (Mitchell 2023,
    https://ericmitchell.ai/cdpo.pdf, eq. 3), cDPO(x) = -(1-e) log s(x) - e log s(-x), is a weighted sum of two losses
    that it does have: with S(x) = -log s(x) and robust R(x) = ((1-e) S(x) - e S(-x)) / (1-2e),
    cDPO = (2-2e) S - (1-2e) R.

    Raises:
        RunError: a loss type cannot work with the label smoothing that is set.

    """
    smoothing = dpo.label_smoothing
    if "exo_pair" in dpo.loss and smoothing == 0:
        message = "dpo.loss exo_pair needs dpo.labelSmoothing above 0"
        raise RunError(Reason.INVALID_SPEC, message, hint="Its authors recommend dpo.labelSmoothing: 0.001.")
    if smoothing > 0 and not set(dpo.loss) & _SMOOTHED_LOSSES:
        message = f"dpo.labelSmoothing is {smoothing:g}, but dpo.loss {', '.join(dpo.loss)} does not use it"
        raise RunError(Reason.INVALID_SPEC, message, hint=f"Losses that use it: {', '.join(sorted(_SMOOTHED_LOSSES))}.")
    types: list[str] = []
    weights: list[float] = []
    for name, weight in zip(dpo.loss, dpo.loss_weights or (1.0,) * len(dpo.loss), strict=True):
        if name == "sigmoid" and smoothing > 0:
            types += ["sigmoid", "robust"]
            weights += [weight * (2 - 2 * smoothing), -weight * (1 - 2 * smoothing)]
        else:
            types.append(name)
            weights.append(weight)
    return tuple(types), tuple(weights)


def decide_plan(config: RunConfig, *, train_rows: int, validation_rows: int) -> tuple[Plan, int]:
    """Count the optimizer steps and validations of a run, and the steps of one epoch, as transformers does."""
    training, world = config.training, config.topology.world_size
    batches = math.ceil(math.ceil(train_rows / training.per_device_batch_size) / world)
    per_epoch = max(math.ceil(batches / training.gradient_accumulation_steps), 1)
    steps = max(math.ceil(training.epochs * per_epoch), 1)
    evaluations = sum(is_due(step, steps, per_epoch, config.checkpoints.every_steps) for step in range(1, steps + 1))
    return Plan(steps, evaluations, validation_rows / config.effective_batch_size), per_epoch


def is_due(step: int, steps: int, steps_per_epoch: int, every_steps: int | None) -> bool:
    """Whether a checkpoint is validated and saved after this optimizer step."""
    return step > 0 and (
        step == steps or step % steps_per_epoch == 0 or (every_steps is not None and step % every_steps == 0)
    )


def deepspeed_config(config: RunConfig, settings: Settings) -> dict[str, Any]:
    """Build DeepSpeed's configuration; "auto" takes the value of the same meaning from the trainer's arguments."""
    deepspeed = config.topology.deepspeed
    zero: dict[str, Any] = {
        "stage": deepspeed.zero_stage,
        "contiguous_gradients": True,
        "overlap_comm": True,
        "reduce_scatter": True,
        "reduce_bucket_size": _BUCKET,
        "allgather_bucket_size": _BUCKET,
    }
    if deepspeed.offload_optimizer:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": False}
    return {
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "train_batch_size": "auto",
        "gradient_clipping": "auto",
        "bf16": {"enabled": settings.precision == "bf16"},
        "fp16": {"enabled": settings.precision == "fp16"},
        "zero_optimization": zero,
        # DeepSpeed's own CPU Adam is compiled at run time; torch's needs no compiler.
        "zero_force_ds_cpu_optimizer": False,
    }


def trainer_arguments(config: RunConfig, settings: Settings, *, output_dir: str, cuda: bool) -> dict[str, Any]:
    """Build the arguments of TRL's DPOConfig.

    Saving, validating and reporting are scheduled by our own callbacks, so the trainer's own are off.
    """
    dpo, training = config.dpo, config.training
    return {
        "output_dir": output_dir,
        "num_train_epochs": training.epochs,
        "per_device_train_batch_size": training.per_device_batch_size,
        "per_device_eval_batch_size": training.per_device_batch_size,
        "gradient_accumulation_steps": training.gradient_accumulation_steps,
        "learning_rate": training.learning_rate,
        "lr_scheduler_type": training.lr_scheduler.value,
        "warmup_steps": training.warmup_ratio,  # below 1 it is a share of all steps
        "weight_decay": training.weight_decay,
        "max_grad_norm": training.max_grad_norm,
        "seed": training.seed,
        "bf16": settings.precision == "bf16",
        "fp16": settings.precision == "fp16",
        "activation_checkpointing": settings.checkpointing,
        "activation_checkpointing_kwargs": {"use_reentrant": False} if settings.checkpointing else None,
        "deepspeed": deepspeed_config(config, settings),
        "use_cpu": not cuda,
        "dataloader_pin_memory": cuda,
        "logging_steps": settings.logging_steps,
        "logging_first_step": True,
        "logging_nan_inf_filter": False,
        "eval_strategy": "no",
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "loss_type": list(settings.loss_type),
        "loss_weights": list(settings.loss_weights),
        "beta": dpo.beta,
        "label_smoothing": dpo.label_smoothing,
        "max_length": dpo.max_length,
        "precompute_ref_log_probs": settings.precompute,
        "disable_dropout": False,
    }


def _switch(value: Switch, *, auto: bool) -> bool:
    return auto if value == "auto" else value == "always"
