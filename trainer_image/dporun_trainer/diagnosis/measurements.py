"""A run's curves and the few measurements of them that the rules of the diagnosis share. Pure."""

import math
from dataclasses import dataclass
from functools import cached_property

from dporun_api.metrics import GRADIENT_NORM, LOSS, Split
from dporun_trainer.diagnosis.remedies import RunValues
from dporun_trainer.run_folder.curves import Curves, Series, mean

LEVEL = 10
"""Logs over which the level of a noisy curve is averaged; the noise of a mean of 10 is a third of one log's."""
PAIRS = 8
"""Pairs per log for which limits on single logs apply unchanged; see ``Measurements.noise``."""
STILL_IMPROVING = 0.02
"""A validation loss that beats all before it by this share still improves, so a gap alone is no overfitting."""
END = 2**63
"""Later than any step."""


@dataclass(frozen=True)
class Measurements:
    """A run's curves and settings, and what the rules derive from them."""

    curves: Curves
    settings: RunValues

    @cached_property
    def train(self) -> Series:
        """Training loss, finite values."""
        return self.curves.get(LOSS, Split.TRAINING).finite()

    @cached_property
    def validation(self) -> Series:
        """Validation loss after the start, finite values."""
        return self.curves.get(LOSS, Split.VALIDATION).finite().between(0, END)

    @cached_property
    def gradients(self) -> Series:
        """Gradient norms, finite values."""
        return self.curves.get(GRADIENT_NORM, Split.TRAINING).finite()

    @cached_property
    def start(self) -> float:
        """Loss of the untrained model: ln 2 for the sigmoid loss, else the first measured loss.

        At the start both rewards are 0, so the sigmoid loss is -log sigmoid(0), whatever the label smoothing.
        """
        if self.settings.loss == ("sigmoid",):
            return math.log(2)
        untrained = self.curves.get(LOSS, Split.VALIDATION).finite()
        if untrained.steps[:1] == (0,):
            return untrained.values[0]
        return self.train.values[0] if self.train else math.log(2)

    @cached_property
    def noise(self) -> float:
        """Factor, at least 1, by which logs are noisier than those of PAIRS pairs.

        The standard deviation of a mean over n pairs goes with 1/sqrt(n), and a single wrong pair has a loss of several
        times ln 2. An unknown batch size counts as 1.
        """
        steps = self.train.steps
        apart = (steps[-1] - steps[0]) // (len(steps) - 1) if len(steps) > 1 else 1
        return math.sqrt(max(1.0, PAIRS / (self.settings.batch_size * max(apart, 1))))

    @cached_property
    def level(self) -> float:
        """Mean training loss of the newest LEVEL logs."""
        return mean(self.train.values[-LEVEL:])

    @cached_property
    def progress(self) -> float:
        """Share of the planned steps or epochs that is done; 1 when neither is known: then it counts as finished."""
        if self.settings.total_steps:
            return self.curves.last_step / self.settings.total_steps
        epochs, last = self.settings.epochs, self.curves.last_epoch
        return 1.0 if not epochs or last is None else last / epochs

    @property
    def finished(self) -> bool:
        """Whether no further validation is to come."""
        return self.progress > 0.99

    @cached_property
    def gaps(self) -> Series:
        """Validation loss minus the training loss of the logs before it, per validation."""
        steps, values, after = [], [], 0
        for step, value in zip(self.validation.steps, self.validation.values, strict=True):
            before = self.train.between(after, step).values[-LEVEL:]
            if before:
                steps.append(step)
                values.append(value - mean(before))
            after = step
        return Series(tuple(steps), tuple(values))

    def eval_improves(self, *, within: int) -> bool:
        """Whether one of the newest ``within`` validation losses is clearly better than all before them."""
        before, newest = self.validation.values[:-within], self.validation.values[-within:]
        return len(before) > 0 and min(newest) < (1 - STILL_IMPROVING) * min(before)

    def at(self, step: int) -> str:
        """Write a step with its epoch, if that is known: ``step 20 (epoch 1)``."""
        epoch = self.curves.epochs.get(step)
        return f"step {step}" if epoch is None else f"step {step} (epoch {epoch:.3g})"
