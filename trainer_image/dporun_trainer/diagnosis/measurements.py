"""A run's curves and the few measurements of them that the rules of the diagnosis share. Pure."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from dporun_api.metrics import (
    GRADIENT_NORM,
    LEARNING_RATE,
    LOGPS_CHOSEN,
    LOGPS_REJECTED,
    LOSS,
    REWARD_ACCURACY,
    REWARD_CHOSEN,
    REWARD_MARGIN,
    REWARD_REJECTED,
    Split,
)
from dporun_trainer.diagnosis import untrained
from dporun_trainer.diagnosis.remedies import RunValues
from dporun_trainer.diagnosis.verdict import POOR_ACCURACY, POOR_MARGIN
from dporun_trainer.run_folder.curves import Curves, Series, mean

LEVEL = 10
"""Most logs over which the level of a noisy curve is averaged; the noise of a mean of 10 is a third of one log's."""
SHARE_OF_LEVEL = 5
"""A level is at most the newest fifth of the logs: over more of a short run, it would be what the run was."""
SURE = 3.0
"""Standard errors by which a difference of training losses must exceed 0 to be no accident of the batches."""
NO_BETTER = 0.98
"""A validation loss above this share of the untrained loss shows that nothing was learnt that holds for other pairs.
With an accuracy and a margin that the specification does not find poor, 1 counts instead: few pairs make the loss."""
STILL_IMPROVING = 0.02
"""A validation loss that beats all before it by this share still improves, so a gap alone is no overfitting."""
TOTALS = "train_runtime"
"""Metric that transformers logs once training has ended, early stopping included."""
END = 2**63
"""Later than any step."""


@dataclass(frozen=True)
class Measurements:
    """A run's curves and settings, and what the rules derive from them."""

    curves: Curves
    settings: RunValues

    # Curves

    @cached_property
    def train(self) -> Series:
        """Training loss: the finite values, without those that transformers' NaN filter invented.

        The filter (``logging_nan_inf_filter``, on by default) leaves a step without a finite loss out, so a log of such
        steps has a loss of 0, or too low a one. The other metrics of the log tell: rewards are not finite.
        """
        losses = self.curves.get(LOSS, Split.TRAINING).finite()
        rewards = (REWARD_CHOSEN, REWARD_REJECTED, REWARD_MARGIN, LOGPS_CHOSEN, LOGPS_REJECTED)
        bad = {step for metric in rewards for step in non_finite(self.curves.get(metric, Split.TRAINING)).steps}
        no_gradient = set(non_finite(self.curves.get(GRADIENT_NORM, Split.TRAINING)).steps)
        pairs = zip(losses.steps, losses.values, strict=True)
        return losses.where([step not in bad and (loss != 0 or step not in no_gradient) for step, loss in pairs])

    @cached_property
    def validation(self) -> Series:
        """Validation loss after the start, finite values."""
        return self.curves.get(LOSS, Split.VALIDATION).finite().between(0, END)

    @cached_property
    def gradients(self) -> Series:
        """Gradient norms, finite values."""
        return self.curves.get(GRADIENT_NORM, Split.TRAINING).finite()

    @cached_property
    def learning_rates(self) -> Series:
        """Learning rates, finite values."""
        return self.curves.get(LEARNING_RATE, Split.TRAINING).finite()

    def margins(self, split: Split) -> Series:
        """Reward margins after the start, as logged, or chosen minus rejected where they are not; finite values."""
        logged = self.curves.get(REWARD_MARGIN, split)
        if logged:
            return logged.finite().between(0, END)
        chosen, rejected = self.curves.get(REWARD_CHOSEN, split), self.curves.get(REWARD_REJECTED, split)
        if chosen.steps != rejected.steps:
            return Series()
        differences = (high - low for high, low in zip(chosen.values, rejected.values, strict=True))
        return Series(chosen.steps, tuple(differences)).finite().between(0, END)

    def accuracies(self, split: Split) -> dict[int, float]:
        """Reward accuracy by step."""
        series = self.curves.get(REWARD_ACCURACY, split).finite()
        return dict(zip(series.steps, series.values, strict=True))

    # The untrained model

    @cached_property
    def _untrained(self) -> untrained.Untrained:
        return untrained.untrained(self.curves, self.settings)

    @property
    def untrained(self) -> float:
        """Loss of the untrained model, the unit of most thresholds."""
        return self._untrained.loss

    @cached_property
    def start(self) -> float:
        """Loss before the first step: the untrained one, or that of the adapter from which a run starts."""
        first = self.curves.get(LOSS, Split.VALIDATION).finite().between(-1, 0).values
        return first[0] if first and first[0] < NO_BETTER * self.untrained else self.untrained

    def no_better(self, step: int) -> bool:
        """Whether the validation at ``step`` shows nothing learnt: a loss near that of the start, or no margin."""
        margin = by_step(self.margins(Split.VALIDATION)).get(step)
        if margin is not None and margin <= 0:
            # IPO learns from means per token: its loss may fall far while the rewards, which are sums, say otherwise.
            return by_step(self.validation)[step] >= self.untrained / 2
        limit = (1.0 if self.orders(step) else NO_BETTER) * self.start
        return self._untrained.certain and by_step(self.validation)[step] >= limit

    def orders(self, step: int) -> bool:
        """Whether the validation at ``step`` has an accuracy and a margin that the specification does not find poor."""
        margin = by_step(self.margins(Split.VALIDATION)).get(step, 0.0)
        return margin >= POOR_MARGIN and self.accuracies(Split.VALIDATION).get(step, 0.0) >= POOR_ACCURACY

    # Levels and their noise

    @cached_property
    def level(self) -> float:
        """Mean of the newest training losses; NaN where there is none."""
        return mean(self.newest.values) if self.train else math.nan

    @property
    def newest(self) -> Series:
        """The logs of ``level``."""
        return newest(self.train)

    @cached_property
    def spread(self) -> float:
        """Standard deviation of single training logs."""
        return spread(self.train.last(2 * LEVEL))

    def error(self, logs: int) -> float:
        """Standard error of a mean of so many training logs."""
        return self.spread / math.sqrt(max(logs, 1))

    @cached_property
    def pairs(self) -> int:
        """Pairs of which a training log is the mean; an unknown batch size counts as 1."""
        steps = self.train.steps
        apart = (steps[-1] - steps[0]) // (len(steps) - 1) if len(steps) > 1 else 1
        return self.settings.batch_size * max(apart, 1)

    @cached_property
    def trained(self) -> Series:
        """Level of the training loss at each validation, from the logs since the validation before."""
        steps, values, after = [], [], -1
        for step in self.validation.steps:
            before = self.before(step, after)
            if before:
                steps.append(step)
                values.append(mean(before.values))
            after = step
        return Series(tuple(steps), tuple(values))

    def before(self, step: int, after: int | None = None) -> Series:
        """Logs of the level at a validation."""
        if after is None:
            after = max((earlier for earlier in self.validation.steps if earlier < step), default=-1)
        width = window(len(self.train.between(-1, step)))
        return self.train.between(after, step).last(width)

    def eval_improves(self, *, within: int) -> bool:
        """Whether one of the newest ``within`` validation losses is clearly better than all before them."""
        before, recent = self.validation.values[:-within], self.validation.values[-within:]
        return len(before) > 0 and min(recent) < (1 - STILL_IMPROVING) * min(before)

    # Progress

    @cached_property
    def progress(self) -> float:
        """Share of the plan that is done; 1 of a run that has ended, or whose plan is unknown."""
        return 1.0 if self.has_ended or self.planned is None else self.planned

    @cached_property
    def planned(self) -> float | None:
        """Share of the planned steps or epochs that is done; None where no plan is known."""
        if self.settings.total_steps:
            return self.curves.last_step / self.settings.total_steps
        epochs, last = self.settings.epochs, self.curves.last_epoch
        return None if not epochs or last is None else last / epochs

    @property
    def has_ended(self) -> bool:
        """Whether the log has the totals that end it, be it before its plan."""
        totals = self.curves.series.get(TOTALS, Series())
        return totals.steps[-1:] >= (self.curves.last_step,)

    @property
    def finished(self) -> bool:
        """Whether no further validation is to come."""
        return self.progress > 0.99

    @cached_property
    def settled(self) -> "Measurements":
        """The run as it was when slow signs were last judged, so that they do not come and go with single logs.

        That is the newest validation, or the last full tenth of the plan where there is none; the end is always judged.
        """
        if self.finished:
            return self
        if self.validation:
            step = self.validation.steps[-1]
        else:
            tenths = math.floor(10 * self.progress) / 10
            step = math.floor(self.curves.last_step * tenths / self.progress) if self.progress else 0
        return Measurements(self.curves.until(step), self.settings)

    # Words

    def at(self, step: int) -> str:
        """Write a step with its epoch, if that is known: ``step 20 (epoch 1)``."""
        epoch = self.curves.epochs.get(step)
        return f"step {step}" if epoch is None else f"step {step} (epoch {epoch:.3g})"

    def value(self, value: float, step: int) -> str:
        """Write a logged value: ``0.41 at step 20 (epoch 1)``."""
        return f"{show(value)} at {self.at(step)}"

    def average(self, series: Series) -> str:
        """Write the mean of one or more logs: ``0.29 on average from step 31 to step 40``."""
        if len(series) == 1:
            return self.value(series.values[0], series.steps[0])
        return f"{show(mean(series.values))} on average from step {series.steps[0]} to step {series.steps[-1]}"

    @property
    def yardstick(self) -> str:
        """Write the loss of the untrained model, and that of the start where it is lower."""
        began = f", and this run began with {self.value(self.start, 0)}" if self.start < self.untrained else ""
        about = "" if self._untrained.certain else "about "
        return f"the untrained model's loss is {about}{show(self.untrained)}{began}"


def window(logs: int) -> int:
    """Logs of the level of so many."""
    return max(1, min(LEVEL, logs // SHARE_OF_LEVEL))


def newest(series: Series) -> Series:
    """The logs of the level of a training curve."""
    return series.last(window(len(series)))


def spread(series: Series) -> float:
    """Standard deviation of single logs, from differences of neighbours, so that a falling curve does not count."""
    steps = [after - before for before, after in itertools.pairwise(series.values)]
    return math.hypot(*steps) / math.sqrt(2 * len(steps)) if steps else 0.0


def non_finite(series: Series) -> Series:
    """The values that are NaN or infinite."""
    return series.where([not math.isfinite(value) for value in series.values])


def by_step(series: Series) -> dict[int, float]:
    """Values of a series by their step."""
    return dict(zip(series.steps, series.values, strict=True))


def path(points: Sequence[tuple[int, float]]) -> str:
    """Write some values of a curve: ``0.6 (step 10) → 0.35 (step 20)``."""
    return " → ".join(f"{show(value)} (step {step})" for step, value in points)


def show(value: float) -> str:
    """Write a value as the evidence does."""
    return f"{value:.3g}"
