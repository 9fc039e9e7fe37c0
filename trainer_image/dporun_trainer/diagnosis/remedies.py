"""What to change when a run is unhealthy: the specification's solutions, as changes of this run's own values. Pure.

A remedy is a function of the run's settings and of observations of its curves. It returns the change to make, or None
when there is none to make (the dropout is high already, or there is no adapter). Where the present value is unknown, as
in runs of other programs, it proposes a value only if that is right whatever the present one is; else the reason tells
the direction.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from dporun_api.metrics import LOSS, Split
from dporun_api.results import BestCheckpoint, Suggestion
from dporun_api.run_config import RunConfig
from dporun_trainer.diagnosis.verdict import GOOD_MARGIN
from dporun_trainer.run_folder.curves import Curves

MAX_LEARNING_RATE = 5e-4
"""No suggestion goes above it, and a run that diverged above it comes down to it at once. LoRA is trained with about
ten times the rate of full fine-tuning, whose DPO recipes use 5e-7 to 5e-6; 5e-4 leaves room for small models."""
DROPOUTS = (0.05, 0.1, 0.2, 0.3)
MAX_RANK = 256
MAX_EPOCHS = 10
CLIP_NORM = 1.0
"""``max_grad_norm`` of the specification."""
SMOOTHED_LOSSES = frozenset({"sigmoid", "robust", "exo_pair", "aot", "aot_unpaired"})
"""Losses that label smoothing changes."""


@dataclass(frozen=True)
class RunValues:
    """A run's values, in the units of the manifest; None is unknown (other programs do not record all of them)."""

    learning_rate: float | None = None
    epochs: float | None = None
    total_steps: int | None = None
    """Optimizer steps planned in all."""
    per_device_batch_size: int | None = None
    gradient_accumulation_steps: int | None = None
    processes: int | None = None
    max_grad_norm: float | None = None
    lora_rank: int | None = None
    """None as well when there is no adapter."""
    lora_alpha: int | None = None
    lora_dropout: float | None = None
    """None as well when the adapter takes none."""
    label_smoothing: float | None = None
    loss: tuple[str, ...] | None = None
    loss_weights: tuple[float, ...] | None = None
    beta: float | None = None

    @property
    def batch_size(self) -> int:
        """Pairs per optimizer step, with 1 for each unknown factor."""
        return (self.per_device_batch_size or 1) * (self.gradient_accumulation_steps or 1) * (self.processes or 1)

    @classmethod
    def of(cls, config: RunConfig, *, takes_dropout: bool = True) -> "RunValues":
        """Take a run's values from its configuration; whether its adapter takes dropout, prepare has found out."""
        training, lora = config.training, config.lora
        return cls(
            learning_rate=training.learning_rate,
            epochs=training.epochs,
            per_device_batch_size=training.per_device_batch_size,
            gradient_accumulation_steps=training.gradient_accumulation_steps,
            processes=config.topology.world_size,
            max_grad_norm=training.max_grad_norm,
            lora_rank=lora.rank,
            lora_alpha=lora.alpha,
            lora_dropout=lora.effective_dropout(takes_dropout=True) if takes_dropout else None,
            label_smoothing=config.dpo.label_smoothing,
            loss=config.dpo.loss,
            loss_weights=config.dpo.loss_weights,
            beta=config.dpo.beta,
        )


@dataclass(frozen=True)
class Observations:
    """What a remedy may know of the curves."""

    best_epoch: float | None = None
    """Epoch of the lowest validation loss."""
    flat: bool = False
    """Whether the loss did not move at all."""
    onset: int | None = None
    """Step at which the trouble began."""
    learnt: bool = True
    """Whether any validation was better than that of the untrained model."""


Remedy = Callable[[RunValues, Observations], Suggestion | None]


def prescribe(remedies: Iterable[Remedy], settings: RunValues, observations: Observations) -> tuple[Suggestion, ...]:
    """Collect the suggestions of the remedies in their order; of several for one field, the first."""
    changes: dict[str, Suggestion] = {}
    for remedy in remedies:
        suggestion = remedy(settings, observations)
        if suggestion is not None:
            changes.setdefault(suggestion.path, suggestion)
    return tuple(changes.values())


def gentler_learning_rate(settings: RunValues, _observations: Observations) -> Suggestion:
    """At most half the learning rate."""
    rate = settings.learning_rate
    return _learning_rate(
        rate, rate and _rung_at_most(rate / 2), "Lower it: smaller steps fit the training data less closely."
    )


def much_gentler_learning_rate(settings: RunValues, _observations: Observations) -> Suggestion:
    """At most a fifth of the learning rate."""
    rate = settings.learning_rate
    proposed = rate and min(_rung_at_most(rate / 5), MAX_LEARNING_RATE)
    return _learning_rate(rate, proposed, "Lower it: the steps are too large, so the loss jumps instead of falling.")


def bolder_learning_rate(settings: RunValues, observations: Observations) -> Suggestion | None:
    """At least twice the learning rate, ten times where nothing moved."""
    rate = settings.learning_rate
    slow = "the loss did not move: the steps are far too small." if observations.flat else "the loss falls too slowly."
    reason = f"Raise it: {slow}"
    if rate is None:
        return _learning_rate(None, None, reason)
    proposed = min(_rung_at_least(rate * (10 if observations.flat else 2)), MAX_LEARNING_RATE)
    return _learning_rate(rate, proposed, reason) if proposed > rate else None


def fewer_epochs(settings: RunValues, observations: Observations) -> Suggestion | None:
    """As many epochs as the best checkpoint had, if it was any good."""
    if observations.best_epoch is None or not observations.learnt:
        return None
    proposed = max(1, round(observations.best_epoch))
    if settings.epochs is not None and proposed >= settings.epochs:
        return None
    reason = (
        f"The validation loss was lowest after epoch {observations.best_epoch:.3g}; later epochs only memorised the "
        "training data."
    )
    return Suggestion(path="spec.training.epochs", current=settings.epochs, proposed=proposed, reason=reason)


def more_epochs(settings: RunValues, _observations: Observations) -> Suggestion | None:
    """Twice the epochs."""
    if settings.epochs is None:
        return Suggestion(path="spec.training.epochs", reason="More passes over the data give the model time to learn.")
    proposed = min(math.ceil(2 * settings.epochs), MAX_EPOCHS)
    if proposed <= settings.epochs:
        return None
    return Suggestion(
        path="spec.training.epochs",
        current=settings.epochs,
        proposed=proposed,
        reason="More passes over the data give the model time to learn.",
    )


def more_dropout(settings: RunValues, _observations: Observations) -> Suggestion | None:
    """The next higher LoRA dropout."""
    current = settings.lora_dropout
    proposed = next((dropout for dropout in DROPOUTS if current is not None and dropout > current + 1e-9), None)
    if proposed is None:
        return None
    reason = "Dropout on the adapter makes single examples harder to memorise."
    return Suggestion(path="spec.lora.dropout", current=current, proposed=proposed, reason=reason)


def higher_rank(settings: RunValues, _observations: Observations) -> Suggestion | None:
    """Twice the LoRA rank."""
    rank = settings.lora_rank
    if rank is None or rank * 2 > MAX_RANK:
        return None
    reason = "A larger adapter can express more."
    return Suggestion(path="spec.lora.rank", current=rank, proposed=rank * 2, reason=reason)


def alpha_of_higher_rank(settings: RunValues, observations: Observations) -> Suggestion | None:
    """Keep alpha / rank, which scales the adapter, when the rank doubles."""
    if settings.lora_alpha is None or settings.lora_rank is None or higher_rank(settings, observations) is None:
        return None
    return Suggestion(
        path="spec.lora.alpha",
        current=settings.lora_alpha,
        proposed=settings.lora_alpha * 2,
        reason="This keeps alpha / rank, the scale of the adapter, at its present value.",
    )


def clip_gradients(settings: RunValues, _observations: Observations) -> Suggestion | None:
    """Clip gradients at 1.0, or at half of a lower norm."""
    path, current = "spec.training.maxGradNorm", settings.max_grad_norm
    reason = "Clipping limits how far one bad batch can move the weights."
    if current is None:
        return Suggestion(path=path, reason=f"Clip gradients at a norm of {CLIP_NORM:g} at most. {reason}")
    proposed = current / 2 if 0 < current <= CLIP_NORM else CLIP_NORM
    return Suggestion(path=path, current=current, proposed=proposed, reason=reason)


def smaller_batch(settings: RunValues, _observations: Observations) -> Suggestion | None:
    """Half the batch per device, or half the accumulation where that is 1 already."""
    size, accumulation = settings.per_device_batch_size, settings.gradient_accumulation_steps
    reason = "A smaller batch narrows down which rows do the damage."
    if size is None or size > 1:
        path = "spec.training.perDeviceBatchSize"
        return Suggestion(path=path, current=size, proposed=size and size // 2, reason=reason)
    if accumulation is None or accumulation <= 1:
        return None
    path = "spec.training.gradientAccumulationSteps"
    return Suggestion(path=path, current=accumulation, proposed=accumulation // 2, reason=reason)


def smooth_labels(settings: RunValues, _observations: Observations) -> Suggestion | None:
    """Expect a tenth of the labels to be flipped."""
    if settings.label_smoothing or (settings.loss is not None and SMOOTHED_LOSSES.isdisjoint(settings.loss)):
        return None
    reason = (
        "Label smoothing (conservative DPO) expects some labels to be wrong, so that contradictory ones do less harm."
    )
    return Suggestion(path="spec.dpo.labelSmoothing", current=settings.label_smoothing, proposed=0.1, reason=reason)


def more_data(_settings: RunValues, observations: Observations) -> Suggestion:
    """Get more training data, or check it where it taught nothing that holds for other pairs."""
    reason = "Get more training data: a larger variety of pairs is harder to memorise."
    if not observations.learnt:
        reason = (
            "Check the data first: validation was never better than with the untrained model, so what was learnt does "
            "not hold for other pairs. Are the labels right, is chosen clearly better, and are the validation pairs of "
            "the same kind? If so, get more training data."
        )
    return Suggestion(path="dataset", reason=reason)


def check_quality(_settings: RunValues, _observations: Observations) -> Suggestion:
    """Check data quality."""
    reason = "Check data quality: are chosen and rejected really different, and is chosen clearly better?"
    return Suggestion(path="dataset", reason=reason)


def check_rows(_settings: RunValues, observations: Observations) -> Suggestion:
    """Check for bad data points."""
    where = "" if observations.onset is None else f" The trouble began at step {observations.onset}."
    reason = f"Check for bad data points: empty, garbled or very long responses.{where}"
    return Suggestion(path="dataset", reason=reason)


def check_labels(_settings: RunValues, _observations: Observations) -> Suggestion:
    """Check which answer is labelled as chosen."""
    reason = (
        "Check the labels: are chosen and rejected swapped in the training or the validation data, or do similar "
        "prompts contradict each other?"
    )
    return Suggestion(path="dataset", reason=reason)


def _learning_rate(current: float | None, proposed: float | None, reason: str) -> Suggestion:
    return Suggestion(path="spec.training.learningRate", current=current, proposed=proposed, reason=reason)


def _rung_at_most(value: float) -> float:
    """Largest number of the series …, 0.5, 1, 2, 5, 10, 20, … that does not exceed ``value``."""
    return max(rung for rung in _rungs_near(value) if rung <= value * (1 + 1e-9))


def _rung_at_least(value: float) -> float:
    return min(rung for rung in _rungs_near(value) if rung >= value * (1 - 1e-9))


def _rungs_near(value: float) -> list[float]:
    exponent = math.floor(math.log10(value))
    return [float(f"{digit}e{power}") for power in (exponent - 1, exponent, exponent + 1) for digit in (1, 2, 5)]


def train_longer(
    config: RunConfig, reward_margin: float, curves: Curves, best: BestCheckpoint | None
) -> Suggestion | None:
    """Advise more epochs when the margin is small and the last checkpoint was the best: it was still improving."""
    validations = curves.get(LOSS, Split.VALIDATION).steps
    if reward_margin >= GOOD_MARGIN or best is None or not validations or best.step != validations[-1]:
        return None
    return more_epochs(RunValues.of(config), Observations())
