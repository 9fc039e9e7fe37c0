"""The gates of a run: what was asked, what was measured, and whether the examples are enough to say so. Pure.

A gate is Passed or Missed by the measured value, as people mean it who ask for 80 %. Where its 95 % interval holds the
limit, chance may have decided: that is said, with the number of examples that would decide. Only where the examples
are very few and do not decide is a gate Undecided, or, for forgetting, NotMeasured; then it does not pass.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from dporun_api.results import EvaluationSummary, GateOutcome, GateResult
from dporun_api.run_config import Evaluation
from dporun_api.text import apart, decimals, percent
from dporun_trainer.significance import (
    FEWEST,
    MOST,
    Lead,
    count_for_mean,
    count_for_share,
    count_to_tell,
    lead,
    wilson,
)

KNOWN_QUESTIONS = 20
"""Forgetting is measured by at least so many questions that the base model knew: of fewer, a single lost one is more
than 5 %, half of what is allowed."""


@dataclass(frozen=True)
class Gate:
    """One gate and how it was met.

    Attributes:
        name: field of evaluation.gates.
        asked: relation and limit in words.
        limit: what was asked.
        measured: value; None where nothing was measured.
        told: the value in words; where nothing was measured, why.
        reached: whether the value reaches the limit.
        decided: whether the examples show it: the interval of the value does not hold the limit.
        enough: whether the examples are enough for the value to count where they do not decide.
        basis: the examples in words.
        needed: how many would decide, were the value the same.

    """

    name: str
    asked: str
    limit: float
    measured: float | None
    told: str
    reached: bool = False
    decided: bool = True
    enough: bool = True
    basis: str = ""
    needed: int = MOST

    @property
    def outcome(self) -> GateOutcome:
        """In one word."""
        if self.measured is None:
            return GateOutcome.NOT_MEASURED
        if not self.decided and not self.enough:
            return GateOutcome.UNDECIDED
        return GateOutcome.PASSED if self.reached else GateOutcome.MISSED

    @property
    def result(self) -> GateResult:
        """For the verdict."""
        return GateResult(
            name=self.name,
            limit=self.limit,
            measured=self.measured,
            outcome=self.outcome,
            needed_to_decide=None if self.decided else self.needed,
        )

    @property
    def reason(self) -> str | None:
        """A sentence, where the gate was not passed, or passed without having been decided."""
        more = f"{self.needed:,}" if self.needed < MOST else "no number of them"
        would = f"{more} would decide at this value"
        open_yet = "" if self.decided else f"; statistically undecided on {self.basis}, {would}"
        match self.outcome:
            case GateOutcome.NOT_MEASURED:
                found = f"was not measured: {self.told}"
            case GateOutcome.UNDECIDED:
                found = f"is undecided: {self.told} on {self.basis}, too few to tell; {would}"
            case GateOutcome.PASSED if self.decided:
                return None
            case GateOutcome.PASSED:
                found = f"was passed with {self.told}{open_yet}"
            case _:
                found = f"was missed with {self.told}{open_yet}"
        return f"Gate evaluation.gates.{self.name} {self.asked} {found}."


def check_gates(result: EvaluationSummary, asked: Evaluation) -> tuple[Gate, ...]:
    """Compare what was measured with the gates that are in force.

    A gate that is null is open, and where the general questions are switched off there is none for forgetting.
    """
    return tuple(_checked(result, asked))


def counted(count: int, noun: str) -> str:
    """Write a number of things."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def share(value: float, *marks: float) -> str:
    """Write a share so that it reads differently from each of ``marks`` that it is not."""
    return apart(value, *marks, write=percent, digits=1)


def margin(value: float, *marks: float) -> str:
    """Likewise a reward margin."""
    return apart(value, *marks, write=decimals, digits=2)


def p_value(value: float, *marks: float) -> str:
    """Likewise a p-value."""
    return apart(value, *marks, write=lambda number, digits: f"{number:.{digits}g}", digits=2)


def can_tell_forgetting(lost: float, known: int, limit: float) -> bool:
    """Whether the base model knew enough to compare a loss with ``limit``; a great loss shows with less."""
    return known >= KNOWN_QUESTIONS or decides(wilson(lost, known), limit)


def _checked(result: EvaluationSummary, asked: Evaluation) -> Iterator[Gate]:
    gates = asked.gates
    if gates.accuracy is not None:
        yield _accuracy(result, gates.accuracy)
    if gates.reward_margin is not None:
        yield _reward_margin(result, gates.reward_margin)
    if gates.better_than_base is not None:
        yield _better_than_base(result, gates.better_than_base)
    if gates.forgetting is not None and asked.general.enabled:
        yield _forgetting(result, gates.forgetting)


def _accuracy(result: EvaluationSummary, limit: float) -> Gate:
    interval = wilson(result.accuracy, result.examples)
    decided = decides(interval, limit)
    low, high = (share(end, limit) for end in interval)
    between = "" if decided else f" (95 % interval {low} to {high})"
    return Gate(
        name="accuracy",
        asked=f"≥ {percent(limit, 10)}",
        limit=limit,
        measured=result.accuracy,
        told=f"{share(result.accuracy, limit)}{between}",
        reached=result.accuracy >= limit,
        decided=decided,
        enough=result.examples >= FEWEST,
        basis=counted(result.examples, "pair"),
        needed=count_for_share(result.accuracy, limit),
    )


def _reward_margin(result: EvaluationSummary, limit: float) -> Gate:
    value, low, high = result.reward_margin, result.reward_margin_low, result.reward_margin_high
    decided, needed = result.examples >= FEWEST, FEWEST  # without an interval, which only too few pairs lack
    if low is not None and high is not None:
        decided, needed = decides((low, high), limit), count_for_mean(value, limit, (low, high), result.examples)
    return Gate(
        name="rewardMargin",
        asked=f"≥ {limit}",
        limit=limit,
        measured=value,
        told=margin(value, limit),
        reached=value >= limit,
        decided=decided,
        enough=result.examples >= FEWEST,
        basis=counted(result.examples, "pair"),
        needed=needed,
    )


def _better_than_base(result: EvaluationSummary, limit: float) -> Gate:
    counts, p = (result.better, result.worse, result.equal), result.better_p_value
    found = lead(*counts, limit)
    return Gate(
        name="betterThanBase",
        asked=f"p ≤ {limit}",
        limit=limit,
        measured=p,
        told="no answers were compared"
        if p is None
        else f"p = {p_value(p, limit)} ({result.better} better, {result.worse} worse)",
        reached=found is Lead.BETTER,
        decided=p is None or found is not Lead.UNCLEAR,
        enough=False,
        basis=counted(sum(counts), "answer"),
        needed=count_to_tell(*counts, limit),
    )


def _forgetting(result: EvaluationSummary, limit: float) -> Gate:
    name, asked = "forgetting", f"≤ {percent(limit, 10)}"
    lost, known = result.forgetting, result.known_questions or 0
    if lost is None:
        return Gate(name, asked, limit, None, "no general questions were asked")
    if not can_tell_forgetting(lost, known, limit):
        why = (
            f"the base model answered {known} of the general questions correctly, and {KNOWN_QUESTIONS} are needed. "
            "Ask questions that it knows (evaluation.general.uri), or open the gate with null"
        )
        return Gate(name, asked, limit, None, why)
    return Gate(
        name=name,
        asked=asked,
        limit=limit,
        measured=lost,
        told=share(lost, limit),
        reached=lost <= limit,
        decided=decides(wilson(lost, known), limit),
        basis=counted(known, "known question"),
        needed=count_for_share(lost, limit),
    )


def decides(interval: tuple[float, float], limit: float) -> bool:
    """Whether an interval lies on one side of a limit."""
    low, high = interval
    return not low <= limit <= high
