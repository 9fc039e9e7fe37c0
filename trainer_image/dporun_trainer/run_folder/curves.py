"""The curves of a run: a log history as one series per metric.

A log history is what transformers keeps as ``log_history``: one mapping per log, training entries with ``loss`` and
validation entries with ``eval_loss``. It may stem from several attempts, of which a later one repeats steps.
"""

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dporun_api.metrics import LOSS, REWARD_ACCURACY, REWARD_CHOSEN, REWARD_MARGIN, REWARD_REJECTED, Metric, Split

MAX_ENTRIES = 5000
"""Entries that are looked at; of a longer history the older ones are thinned, so that looking stays cheap."""


@dataclass(frozen=True)
class Series:
    """One metric: ``values[i]`` was logged at optimizer step ``steps[i]``; steps strictly rise."""

    steps: tuple[int, ...] = ()
    values: tuple[float, ...] = ()

    def __len__(self) -> int:
        return len(self.steps)

    def finite(self) -> "Series":
        """Leave out NaN and the infinities."""
        return self.where([math.isfinite(value) for value in self.values])

    def where(self, keep: Sequence[bool]) -> "Series":
        """Keep the points whose flag is set."""
        return Series(
            tuple(step for step, flag in zip(self.steps, keep, strict=True) if flag),
            tuple(value for value, flag in zip(self.values, keep, strict=True) if flag),
        )

    def between(self, after: int, until: int) -> "Series":
        """Keep the points with ``after < step <= until``."""
        return self.part(bisect_right(self.steps, after), bisect_right(self.steps, until))

    def part(self, start: int, stop: int) -> "Series":
        """Keep the points from the ``start``-th up to before the ``stop``-th."""
        return Series(self.steps[start:stop], self.values[start:stop])

    def last(self, count: int) -> "Series":
        """Keep the newest ``count`` points."""
        return Series(self.steps[-count:], self.values[-count:])

    def best(self) -> tuple[int, float] | None:
        """Step and value of the lowest point, the earliest where several are equal; None of an empty series."""
        if not self.steps:
            return None
        value, step = min(zip(self.values, self.steps, strict=True))
        return step, value


@dataclass(frozen=True)
class Curves:
    """All series of a run, by their key in the log history."""

    series: Mapping[str, Series] = field(default_factory=dict)
    epochs: Mapping[int, float] = field(default_factory=dict)
    """Epoch by step."""

    def get(self, metric: Metric, split: Split) -> Series:
        """Series of a metric, empty where it was not logged."""
        return self.series.get(metric.log_key(split), Series())

    def until(self, step: int) -> "Curves":
        """The curves as they were at a step."""
        return Curves(
            {key: cut for key, series in self.series.items() if (cut := series.between(-1, step))},
            {place: epoch for place, epoch in self.epochs.items() if place <= step},
        )

    @property
    def last_step(self) -> int:
        """Newest optimizer step that an entry is of, be it without a metric; 0 of an empty history."""
        return max([*self.epochs, *(series.steps[-1] for series in self.series.values() if series)], default=0)

    @property
    def last_epoch(self) -> float | None:
        """Passes over the training data so far."""
        return max(self.epochs.values(), default=None)

    @classmethod
    def of(cls, history: Sequence[Mapping[str, Any]]) -> "Curves":
        """Read a log history.

        Values may be numbers or the strings with which JSON writers spell NaN and infinity; what is neither is
        skipped. When steps go back (an attempt that resumed), the later attempt counts. A validation of the same step
        once more does not: that is the best checkpoint, loaded again at the end.
        """
        points: dict[str, tuple[list[int], list[float]]] = {}
        epochs: dict[int, float] = {}
        for index, entry in enumerate(map(as_measured, _thinned(history))):
            place = number(entry.get("step", index))
            if place is None or not math.isfinite(place):
                continue
            step = int(place)
            for key, raw in entry.items():
                value = None if key == "step" else number(raw)
                if value is None:
                    continue
                if key == "epoch":
                    epochs[step] = value
                    continue
                steps, values = points.setdefault(key, ([], []))
                if steps and steps[-1] == step and key.startswith("eval_"):
                    continue
                while steps and steps[-1] >= step:
                    steps.pop()
                    values.pop()
                steps.append(step)
                values.append(value)
        return cls({key: Series(tuple(steps), tuple(values)) for key, (steps, values) in points.items()}, epochs)


def as_measured(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """Make the accuracy of rewards that are not numbers no number: nothing is above NaN, so it is logged as 0."""
    for split in Split:
        accuracy = REWARD_ACCURACY.log_key(split)
        rewards = (number(entry.get(metric.log_key(split))) for metric in _REWARDS)
        if accuracy in entry and any(reward is not None and not math.isfinite(reward) for reward in rewards):
            entry = {**entry, accuracy: math.nan}
    return entry


_REWARDS = (REWARD_CHOSEN, REWARD_REJECTED, REWARD_MARGIN)


def number(value: object) -> float | None:
    """Read a number as JSON, TensorBoard or transformers write it; None of anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):  # the latter of an integer of hundreds of digits
        return None


def mean(values: Sequence[float]) -> float:
    """Arithmetic mean of one or more values."""
    return math.fsum(values) / len(values)


def quantile(values: Sequence[float], share: float) -> float:
    """Lower ``share``-quantile of one or more values; 0.5 is the (lower) median."""
    return sorted(values)[int(share * (len(values) - 1))]


def smooth(values: Sequence[float], *, span: int) -> list[float]:
    """Exponential moving average of ``values`` over about ``span`` points, without the bias of its start.

    A value that is not finite stays out of the average.
    """
    keep = 1 - 2 / (span + 1)
    total = weight = 0.0
    averages: list[float] = []
    for value in values:
        if math.isfinite(value):
            total, weight = keep * total + value, keep * weight + 1
        averages.append(total / weight if weight else math.nan)
    return averages


_VALIDATION_LOSS = LOSS.log_key(Split.VALIDATION)


def _thinned(history: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """At most about MAX_ENTRIES training entries: the newest half as they are, the older evenly thinned.

    Validations and losses that are not numbers always stay.
    """
    if len(history) <= MAX_ENTRIES:
        return history
    newest = len(history) - MAX_ENTRIES // 2
    stride = 2 * newest // MAX_ENTRIES + 1
    return [
        entry
        for index, entry in enumerate(history)
        if index >= newest
        or index % stride == 0
        or _VALIDATION_LOSS in entry
        or not _is_finite(entry.get(LOSS.key, 0.0))
    ]


def _is_finite(value: object) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)
