"""The verdict on a finished run: Good, Fair or NeedsImprovement, and whether it passed its gates. Pure."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from dporun_api.results import EvaluationSummary, Health, HealthState, Verdict, VerdictState
from dporun_api.run_config import Evaluation, Gates
from dporun_api.text import percent

GOOD_ACCURACY, POOR_ACCURACY = 0.80, 0.70
"""An accuracy above the first is good; one below the second needs improvement."""
GOOD_MARGIN, POOR_MARGIN = 2.0, 1.0
"""Likewise for the mean reward margin."""
MAX_FORGETTING = 0.1
"""Share of general knowledge whose loss is forgetting when the run's own gate is open; the default of that gate."""

_WORST_FIRST = (VerdictState.NEEDS_IMPROVEMENT, VerdictState.FAIR, VerdictState.GOOD)


@dataclass(frozen=True)
class _Criterion:
    """The judgement of one measure, with its reason as a sentence."""

    state: VerdictState
    reason: str


def judge(evaluation: EvaluationSummary | None, gates: Gates, health: Health | None = None) -> Verdict:
    """Judge a result.

    It is Good when every measure is good, NeedsImprovement when at least one is poor, else Fair; a measure that was
    not taken does not count. A result that was not evaluated at all is Fair at best. The judgement is about the best
    checkpoint, so ``health``, which is about the whole training, only adds a reason; without an evaluation it decides.

    Args:
        evaluation: the measured result; None when evaluation was disabled or failed.
        gates: thresholds for ``passed``. A null gate is open; a gate whose measure is missing is not met.
        health: diagnosis of the training.

    """
    ill = health is not None and health.state not in {HealthState.ON_TRACK, HealthState.UNKNOWN}
    if evaluation is None:
        state = VerdictState.NEEDS_IMPROVEMENT if ill else VerdictState.FAIR
        criteria = [
            _Criterion(state, "The result was not evaluated, so nothing shows that it is better than the base model.")
        ]
    else:
        criteria = list(_criteria(evaluation, gates))
    criteria.sort(key=lambda criterion: _WORST_FIRST.index(criterion.state))
    missed = tuple(_missed(evaluation, gates))
    training = (f"Training was {health.state}: {' '.join(health.evidence[:1])}",) if health and ill else ()
    return Verdict(
        state=criteria[0].state,
        passed=not missed,
        reasons=(*(criterion.reason for criterion in criteria), *missed, *training),
    )


def gates_in_force(evaluation: Evaluation) -> Gates:
    """Gates of a run, without the one on a check that the run itself switched off."""
    general = evaluation.enabled and evaluation.general.enabled
    return evaluation.gates if general else evaluation.gates.model_copy(update={"forgetting": None})


def _criteria(result: EvaluationSummary, gates: Gates) -> Iterator[_Criterion]:
    interval = ""
    if result.accuracy_low is not None and result.accuracy_high is not None:
        interval = f" (95 % interval {percent(result.accuracy_low)} to {percent(result.accuracy_high)})"
    accuracy = f"Accuracy of {percent(result.accuracy)}{interval} on {result.examples} validation pairs"
    yield _graded(accuracy, result.accuracy, GOOD_ACCURACY, POOR_ACCURACY, percent)
    yield _graded(f"Reward margin of {result.reward_margin:.2f}", result.reward_margin, GOOD_MARGIN, POOR_MARGIN, str)

    if result.better_than_base is not None:
        yield (
            _Criterion(VerdictState.GOOD, "Answers are better than the base model's more often than they are worse.")
            if result.better_than_base
            else _Criterion(VerdictState.NEEDS_IMPROVEMENT, "Answers are not noticeably better than the base model's.")
        )
    if result.forgetting is not None:
        limit = MAX_FORGETTING if gates.forgetting is None else gates.forgetting
        lost = f"{percent(result.forgetting)} of general knowledge was lost (limit {percent(limit)})"
        yield (
            _Criterion(VerdictState.GOOD, f"No catastrophic forgetting: {lost}.")
            if result.forgetting <= limit
            else _Criterion(VerdictState.NEEDS_IMPROVEMENT, f"Catastrophic forgetting: {lost}.")
        )


def _graded(what: str, value: float, good: float, poor: float, show: Callable[[float], str]) -> _Criterion:
    if value > good:
        return _Criterion(VerdictState.GOOD, f"{what} is good (above {show(good)}).")
    if value < poor:
        return _Criterion(VerdictState.NEEDS_IMPROVEMENT, f"{what} is too low (below {show(poor)}).")
    return _Criterion(VerdictState.FAIR, f"{what} is fair (good is above {show(good)}).")


def _missed(result: EvaluationSummary | None, gates: Gates) -> Iterator[str]:
    """A sentence for each gate that was not met."""
    if gates.accuracy is not None and (result is None or result.accuracy < gates.accuracy):
        yield _gate("accuracy", "≥", percent(gates.accuracy), percent(result.accuracy) if result else None)
    if gates.reward_margin is not None and (result is None or result.reward_margin < gates.reward_margin):
        yield _gate("rewardMargin", "≥", str(gates.reward_margin), f"{result.reward_margin:.2f}" if result else None)
    forgetting = result.forgetting if result else None
    if gates.forgetting is not None and (forgetting is None or forgetting > gates.forgetting):
        measured = None if forgetting is None else percent(forgetting)
        yield _gate("forgetting", "≤", percent(gates.forgetting), measured)


def _gate(name: str, relation: str, limit: str, measured: str | None) -> str:
    got = "it was not measured" if measured is None else f"it is {measured}"
    return f"Gate evaluation.gates.{name} {relation} {limit} was not met: {got}."
