"""From what a RunConfig asks to what training really does: one decision, made once. Pure; no torch."""

import math
from dataclasses import dataclass

from dporun_api.memory import MemoryEstimate
from dporun_api.run_config import Dpo, Precision, Quantization, RunConfig, Switch
from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer.errors import RunError
from dporun_trainer.machine import Machine
from dporun_trainer.memory import Shape, estimate, require_possible
from dporun_trainer.objective import untrained_loss
from dporun_trainer.precision import Arithmetic, choose_arithmetic
from dporun_trainer.progress import TotalWork

LOG_ENTRIES = 100
"""About so many log entries a run has when training.loggingSteps is absent."""

_SMOOTHED_LOSSES = {"sigmoid", "robust", "exo_pair", "aot", "aot_unpaired"}


@dataclass(frozen=True)
class Schedule:
    """Which optimizer steps a run takes, and after which of them it validates and saves.

    Attributes:
        steps: in all.
        steps_per_epoch: of one pass over the training data.
        every_steps: steps between checkpoints within an epoch, if there are any.
        validates_start: whether it also validates before the first step, when there is nothing to save yet.

    """

    steps: int
    steps_per_epoch: int
    every_steps: int | None = None
    validates_start: bool = False

    def is_due(self, step: int) -> bool:
        """Whether a checkpoint is validated and saved after this step: each epoch's last, every so many, the last."""
        return step > 0 and (
            step == self.steps
            or step % self.steps_per_epoch == 0
            or (self.every_steps is not None and step % self.every_steps == 0)
        )

    @property
    def validations(self) -> int:
        """How often the run validates."""
        return self.validates_start + sum(self.is_due(step) for step in range(1, self.steps + 1))


@dataclass(frozen=True)
class TrainingPlan:
    """What training does: every "auto" decided, every number of steps counted.

    Attributes:
        precision: arithmetic of the forward and backward pass.
        memory: that one process needs, estimated.
        gradient_checkpointing: whether activations are recomputed.
        precompute_ref_log_probs: whether the base model's log-probabilities are computed once, before training.
        loss_type: loss types of TRL's DPOTrainer.
        loss_weights: their weights.
        train_rows: preference pairs to train on.
        validation_rows: preference pairs held out.
        schedule: optimizer steps and validations.
        logging_steps: optimizer steps between log entries.
        work: steps and validations, for progress and time left.

    """

    precision: Arithmetic
    memory: MemoryEstimate
    gradient_checkpointing: bool
    precompute_ref_log_probs: bool
    loss_type: tuple[str, ...]
    loss_weights: tuple[float, ...]
    train_rows: int
    validation_rows: int
    schedule: Schedule
    logging_steps: int
    work: TotalWork


def decide_plan(
    config: RunConfig, machine: Machine, shape: Shape, *, train_rows: int, validation_rows: int
) -> TrainingPlan:
    """Decide everything that the configuration leaves open.

    Args:
        config: what the user asked.
        machine: what the processes run on.
        shape: sizes of model and batch, for the memory estimate.
        train_rows: preference pairs to train on.
        validation_rows: preference pairs held out.

    Raises:
        RunError: the configuration asks for something that cannot be done here, or a model that can never fit.

    """
    precision = decide_precision(config.training.precision, machine, config.model.quantization)
    memory = estimate(config, shape, arithmetic=precision, cuda=machine.cuda)
    require_possible(memory, machine.capacity, machine.name, quantization=config.model.quantization, cuda=machine.cuda)
    loss_type, loss_weights = decide_losses(config.dpo)
    schedule = decide_schedule(config, train_rows)
    validations = schedule.validations
    # Forward passes of the base model while training, against one for each row before.
    pays = config.training.epochs * train_rows + validations * validation_rows > train_rows + validation_rows
    return TrainingPlan(
        precision=precision,
        memory=memory,
        gradient_checkpointing=_switch(
            config.training.gradient_checkpointing, auto=not memory.fits(machine.memory, checkpointing=False)
        ),
        precompute_ref_log_probs=_switch(config.dpo.precompute_ref_log_probs, auto=pays),
        loss_type=loss_type,
        loss_weights=loss_weights,
        train_rows=train_rows,
        validation_rows=validation_rows,
        schedule=schedule,
        logging_steps=config.training.logging_steps or max(1, schedule.steps // LOG_ENTRIES),
        work=TotalWork(schedule.steps, validations, validation_rows / config.effective_batch_size),
    )


def decide_precision(requested: Precision, machine: Machine, quantization: Quantization | None = None) -> Arithmetic:
    """Choose the arithmetic of training.

    Raises:
        RunError: the machine cannot train in the requested one.

    """
    if requested == "fp16" and not machine.cuda:
        message = "training.precision is fp16, but this process has no GPU, and DeepSpeed has no fp16 on CPU"
        raise RunError(Reason.INVALID_SPEC, message, hint="Set training.precision: auto.")
    if requested == "bf16" and not machine.bf16:
        message = f"training.precision is bf16, but {machine.name} does not compute in bfloat16"
        raise RunError(Reason.INVALID_SPEC, message, hint="Set training.precision: auto, which takes fp16.")
    return choose_arithmetic(requested, machine, quantization)


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


def decide_schedule(config: RunConfig, train_rows: int) -> Schedule:
    """Count the optimizer steps of a run and of one epoch, as transformers does.

    Where training starts is what its losses are measured against. It is measured where it does not follow from the
    objective: because a loss depends on the model, or because the run starts from an earlier one's adapter.
    """
    dpo = config.dpo
    starts_at = untrained_loss(dpo.loss, dpo.loss_weights, dpo.beta, dpo.label_smoothing)
    validates_start = starts_at is None or config.checkpoints.resume_from is not None
    training, world = config.training, config.topology.world_size
    batches = math.ceil(math.ceil(train_rows / training.per_device_batch_size) / world)
    per_epoch = max(math.ceil(batches / training.gradient_accumulation_steps), 1)
    steps = max(math.ceil(training.epochs * per_epoch), 1)
    return Schedule(steps, per_epoch, config.checkpoints.every_steps, validates_start)


def _switch(value: Switch, *, auto: bool) -> bool:
    return auto if value == "auto" else value == "always"
