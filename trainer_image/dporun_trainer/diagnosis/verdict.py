"""The verdict on a finished run: Good, Fair or NeedsImprovement, and whether it passed its gates. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass

from dporun_api.results import EvaluationSummary, GateOutcome, Health, HealthState, Verdict, VerdictState
from dporun_api.run_config import Evaluation
from dporun_api.text import percent
from dporun_trainer.diagnosis.gates import (
    KNOWN_QUESTIONS,
    can_tell_forgetting,
    check_gates,
    counted,
    decides,
    margin,
    p_value,
    share,
)
from dporun_trainer.significance import FEWEST, LEVEL, MOST, Lead, count_for_share, count_to_tell, lead, wilson

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


def judge(result: EvaluationSummary | None, asked: Evaluation, health: Health | None = None) -> Verdict:
    """Judge a result.

    It is Good when every measure is good, NeedsImprovement when at least one is poor, else Fair. What was not
    measured, or by too few examples to tell, is not good: it is Fair. So is an accuracy of so few pairs that its
    interval holds the mark, or the run's own gate: chance may have decided. The judgement is about the best
    checkpoint, so ``health``, which is about the whole training, only adds a reason; without an evaluation it decides.

    A result that was not evaluated passes nothing. As the user asked for no evaluation, there are no gates to miss.

    Args:
        result: what was measured; None when evaluation was switched off.
        asked: the run's own settings of the evaluation, with its gates.
        health: diagnosis of the training.

    """
    ill = health is not None and health.state not in {HealthState.ON_TRACK, HealthState.UNKNOWN}
    if result is None:
        state = VerdictState.NEEDS_IMPROVEMENT if ill else VerdictState.FAIR
        words = "The result was not evaluated, so nothing shows that it is better than the base model."
        criteria = [_Criterion(state, words)]
    else:
        criteria = sorted(_criteria(result, asked), key=lambda criterion: _WORST_FIRST.index(criterion.state))
    gates = check_gates(result, asked) if result is not None else ()
    training = (f"Training was {health.state}: {' '.join(health.evidence[:1])}",) if health and ill else ()
    return Verdict(
        state=criteria[0].state,
        passed=result is not None and all(gate.outcome is GateOutcome.PASSED for gate in gates),
        gates=tuple(gate.result for gate in gates),
        reasons=(
            *(criterion.reason for criterion in criteria),
            *(gate.reason for gate in gates if gate.reason),
            *training,
        ),
    )


def _criteria(result: EvaluationSummary, asked: Evaluation) -> Iterator[_Criterion]:
    yield _accuracy(result, asked.gates.accuracy)
    yield _reward_margin(result)
    yield _answers(result)
    if asked.general.enabled:
        yield _forgetting(result, MAX_FORGETTING if asked.gates.forgetting is None else asked.gates.forgetting)
    else:
        yield _Criterion(VerdictState.FAIR, "Forgetting was not measured: evaluation.general.enabled is false.")


def _accuracy(result: EvaluationSummary, gate: float | None) -> _Criterion:
    marks = GOOD_ACCURACY, POOR_ACCURACY
    interval = wilson(result.accuracy, result.examples)
    low, high = (share(end, *marks) for end in interval)
    what = (
        f"Accuracy of {share(result.accuracy, *marks)} (95 % interval {low} to {high}) on "
        f"{counted(result.examples, 'validation pair')}"
    )
    unclear = [limit for limit in (GOOD_ACCURACY, gate) if limit is not None and not decides(interval, limit)]
    if result.accuracy > GOOD_ACCURACY and result.examples >= FEWEST and unclear:
        limit = unclear[0]
        needed = count_for_share(result.accuracy, limit)
        many = f"about {needed:,} pairs" if needed < MOST else "no number of pairs"
        words = f"is above {percent(GOOD_ACCURACY)}, but the interval holds {percent(limit, 10)}"
        return _Criterion(VerdictState.FAIR, f"{what} {words}: {many} would decide at this value.")
    return _graded(what, result.accuracy, result.examples, *((mark, percent(mark)) for mark in marks))


def _reward_margin(result: EvaluationSummary) -> _Criterion:
    marks = GOOD_MARGIN, POOR_MARGIN
    what = f"Reward margin of {margin(result.reward_margin, *marks)}"
    if result.beta is not None:
        what += f" at beta {result.beta:g}"
    if result.reward_margin_low is not None and result.reward_margin_high is not None:
        low, high = (margin(end, *marks) for end in (result.reward_margin_low, result.reward_margin_high))
        what += f" (95 % interval {low} to {high})"
    return _graded(what, result.reward_margin, result.examples, *((mark, str(mark)) for mark in marks))


def _graded(what: str, value: float, examples: int, good: tuple[float, str], poor: tuple[float, str]) -> _Criterion:
    """Judge a value by its marks, which come with their words."""
    if value < poor[0]:
        return _Criterion(VerdictState.NEEDS_IMPROVEMENT, f"{what} is too low (below {poor[1]}).")
    if value <= good[0]:
        return _Criterion(VerdictState.FAIR, f"{what} is fair (good is above {good[1]}).")
    if examples < FEWEST:
        few = f"but on too few pairs to call it good: {examples}, and at least {FEWEST} are needed"
        return _Criterion(VerdictState.FAIR, f"{what} is above {good[1]}, {few}.")
    return _Criterion(VerdictState.GOOD, f"{what} is good (above {good[1]}).")


def _answers(result: EvaluationSummary) -> _Criterion:
    if result.better_p_value is None:
        return _Criterion(
            VerdictState.FAIR, "No answers were compared with the base model's, so nothing shows that they are better."
        )
    counts = result.better, result.worse, result.equal
    told = (
        f"{result.better} better, {result.worse} worse, {result.equal} equal "
        f"(sign test p = {p_value(result.better_p_value, LEVEL)})"
    )
    match lead(*counts):
        case Lead.BETTER:
            words = f"Answers are noticeably better than the base model's: {told}."
            return _Criterion(VerdictState.GOOD, words)
        case Lead.WORSE:
            words = f"Answers are noticeably worse than the base model's: {told}."
            return _Criterion(VerdictState.NEEDS_IMPROVEMENT, words)
        case Lead.NONE:
            words = f"Answers are not noticeably better than the base model's: {told}."
            return _Criterion(VerdictState.NEEDS_IMPROVEMENT, words)
    words = f"Too few answers to tell whether they are better than the base model's: {told}"
    return _Criterion(VerdictState.FAIR, f"{words}; {count_to_tell(*counts)} would in these proportions.")


def _forgetting(result: EvaluationSummary, limit: float) -> _Criterion:
    lost, known = result.forgetting, result.known_questions or 0
    if lost is None:
        return _Criterion(VerdictState.FAIR, "Forgetting was not measured.")
    low, high = (share(end, limit) for end in wilson(lost, known))
    told = (
        f"{share(lost, limit)} of general knowledge was lost (95 % interval {low} to {high}; "
        f"limit {percent(limit, 10)})"
    )
    knew = f"the base model answered {counted(known, 'general question')} correctly"
    if not can_tell_forgetting(lost, known, limit):
        words = f"Forgetting cannot be measured: {knew}, and {KNOWN_QUESTIONS} are needed; {told}."
        return _Criterion(VerdictState.FAIR, words)
    if lost <= limit:
        return _Criterion(VerdictState.GOOD, f"No catastrophic forgetting: {told}; {knew}.")
    return _Criterion(VerdictState.NEEDS_IMPROVEMENT, f"Catastrophic forgetting: {told}; {knew}.")
