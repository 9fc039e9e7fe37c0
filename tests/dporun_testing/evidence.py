"""Check sentences of the diagnosis against the log history that they speak of, without asking the diagnosis."""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from dporun_api.metrics import Split
from dporun_trainer.run_folder.curves import Curves, Series

NUMBER = r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?"
VALUE = rf"({NUMBER})"
STEP = rf"step (-?\d+)(?: \(epoch ({NUMBER})\))?"


def untrue(sentence: str, history: Sequence[Mapping[str, Any]], untrained: float) -> list[str]:
    """What a sentence says that the log does not; a number that no form of sentence explains is untrue as well.

    Args:
        sentence: of the evidence of a diagnosis.
        history: that it is about.
        untrained: loss of the untrained model.

    """
    checker = _Checker(Curves.of(history), untrained, sentence)
    for form, check in checker.forms():
        sentence = re.sub(form, lambda match, check=check: checker.take(match, check), sentence)  # type: ignore[misc]
    return [*checker.wrong, *(f"unexplained: {number}" for number in re.findall(NUMBER, sentence))]


class _Checker:
    def __init__(self, curves: Curves, untrained: float, sentence: str) -> None:
        self.curves, self.untrained, self.sentence = curves, untrained, sentence
        self.wrong: list[str] = []
        self.series = {key: series for key, series in curves.series.items() if key != "epoch"}
        for split in Split:
            prefix = "" if split is Split.TRAINING else "eval_"
            chosen, rejected = (self.series.get(f"{prefix}rewards/{side}") for side in ("chosen", "rejected"))
            if chosen and rejected and f"{prefix}rewards/margins" not in self.series and chosen.steps == rejected.steps:
                differences = (high - low for high, low in zip(chosen.values, rejected.values, strict=True))
                self.series[f"{prefix}rewards/margins"] = Series(chosen.steps, tuple(differences))

    def take(self, match: re.Match[str], check: Callable[..., bool]) -> str:
        """Check a piece of the sentence, and leave nothing of it."""
        if not check(*match.groups()):
            self.wrong.append(match[0])
        return " "

    def forms(self) -> Iterator[tuple[str, Callable[..., bool]]]:
        """The forms in which a sentence may have numbers, the longer ones first."""
        yield rf"the untrained model's loss is (?:about )?{VALUE}", lambda value: value == show(self.untrained)
        yield rf"{VALUE} on average from step (-?\d+) to step (-?\d+)", self._mean
        yield rf"margin {VALUE}(?: and accuracy {VALUE})? on the validation data at {STEP}", self._margin
        yield rf"{VALUE} at {STEP}, with a margin of {VALUE}", self._with_margin
        yield rf"accuracy went from {VALUE} to {VALUE}", self._accuracies
        yield rf"is not a finite number at {STEP}(?:, (\d+) times so far)?", self._not_finite
        yield rf"not finite in (\d+) of the last 10 logs, first at {STEP}", self._gradients_not_finite
        yield r"loss jumped (\d+) times", lambda count: int(count) >= 3
        yield r"(\d+) logs are above ten times the former", lambda count: int(count) >= 1
        yield r"in the first 10 logs", lambda: True
        yield rf"{VALUE} at {STEP}", self._value
        yield rf"{VALUE} \(step (-?\d+)\)", self._turn
        yield r"as the mean of (\d+) logs", lambda _: True
        yield r"for a diagnosis: (\d+) steps", lambda steps: int(steps) == self.curves.last_step

    def _value(self, value: str, step: str, epoch: str | None) -> bool:
        return self._epoch(step, epoch) and any(
            show(logged) == value for series in self.series.values() for logged in at(series, int(step))
        )

    def _epoch(self, step: str, epoch: str | None) -> bool:
        return epoch is None or show(self.curves.epochs[int(step)]) == epoch

    def _mean(self, value: str, first: str, last: str) -> bool:
        """A mean of training logs: of all, or of those in which the filter of NaN cannot have had a hand."""
        training = {key: series for key, series in self.series.items() if not key.startswith("eval_")}
        bad = {
            key: set(series.where([not math.isfinite(v) for v in series.values]).steps)
            for key, series in training.items()
        }
        no_gradient = bad.pop("grad_norm", set())
        bad.pop("rewards/accuracies", None)  # nothing is above NaN, so they are numbers all the same
        loss = training.get("loss", Series())
        filtered = set().union(*bad.values()) | (no_gradient & set(loss.where([v == 0 for v in loss.values]).steps))
        spans = [series.finite().between(int(first) - 1, int(last)) for series in training.values()]
        spans += [span.where([step not in filtered for step in span.steps]) for span in spans]
        return any(
            span and (span.steps[0], span.steps[-1]) == (int(first), int(last)) and show(average(span.values)) == value
            for span in spans
        )

    def _turn(self, value: str, step: str) -> bool:
        width = re.search(r"as the mean of (\d+) logs", self.sentence)
        if width is None:
            return any(show(logged) == value for logged in at(self.series["eval_loss"], int(step)))
        block = self.series["loss"].finite().between(-1, int(step)).last(int(width[1]))
        return block.steps[-1] == int(step) and show(average(block.values)) == value

    def _margin(self, margin: str, accuracy: str | None, step: str, epoch: str | None) -> bool:
        return (
            self._epoch(step, epoch)
            and self._logged("eval_rewards/margins", int(step), margin)
            and (accuracy is None or self._logged("eval_rewards/accuracies", int(step), accuracy))
        )

    def _with_margin(self, value: str, step: str, epoch: str | None, margin: str) -> bool:
        return self._value(value, step, epoch) and self._logged("eval_rewards/margins", int(step), margin)

    def _logged(self, key: str, step: int, value: str) -> bool:
        return any(show(logged) == value for logged in at(self.series[key], step))

    def _accuracies(self, before: str, after: str) -> bool:
        losses = self.series["eval_loss"].finite().between(0, 2**62)
        best = losses.best()
        assert best is not None
        key = "eval_rewards/accuracies"
        return self._logged(key, best[0], before) and self._logged(key, losses.steps[-1], after)

    def _not_finite(self, step: str, epoch: str | None, count: str | None) -> bool:
        key = self.sentence.partition(" is not a finite")[0].rpartition(" ")[2]
        series = self.series[key]
        bad = [place for place, value in zip(series.steps, series.values, strict=True) if not math.isfinite(value)]
        return self._epoch(step, epoch) and bad[0] == int(step) and len(bad) == int(count or 1)

    def _gradients_not_finite(self, count: str, step: str, epoch: str | None) -> bool:
        series = self.series["grad_norm"]
        bad = [place for place, value in zip(series.steps, series.values, strict=True) if not math.isfinite(value)]
        recent = sum(not math.isfinite(value) for value in series.values[-10:])
        return self._epoch(step, epoch) and bad[0] == int(step) and recent == int(count)


def at(series: Series, step: int) -> list[float]:
    """The value at a step, if there is one."""
    return [value for place, value in zip(series.steps, series.values, strict=True) if place == step]


def average(values: Sequence[float]) -> float:
    """Mean of some values."""
    return math.fsum(values) / len(values)


def show(value: float) -> str:
    """A number as people read it."""
    return f"{value:.3g}"
