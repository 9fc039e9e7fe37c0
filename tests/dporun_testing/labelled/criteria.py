"""What makes a run healthy or ill: the only place where labelled runs get their labels. Never asks the diagnosis.

A label rests on the true course of a run: how good the model really was, on many pairs and without the noise of
batches, at rising points of training. Losses are in units of the untrained model's (ln 2 for the sigmoid loss), so 1
is a model that has learnt nothing and more than 1 is one that is worse than before.

Criteria have borders, and near a border two answers are right. So every criterion is applied three times, with half,
the whole and the double of what it asks for (``need``); each of the three answers is accepted, the middle one expected.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from dporun_api.results import HealthState

NEEDS = (0.5, 1.0, 2.0)
ON_TRACK, OVERFITTING, UNDERFITTING = HealthState.ON_TRACK, HealthState.OVERFITTING, HealthState.UNDERFITTING
UNSTABLE, CONFUSED, UNKNOWN = HealthState.UNSTABLE, HealthState.CONFUSED, HealthState.UNKNOWN


@dataclass(frozen=True)
class Course:
    """The true course of a run, or what its own validation pairs show of it; each tuple begins untrained."""

    validation: tuple[float, ...]
    """Loss on held-out pairs, in units of the untrained loss."""
    training: tuple[float, ...]
    """Loss of the same model on the training pairs, those it has not met yet included, in the same units."""
    accuracy: float
    """Share of held-out pairs whose margin is positive, at the end."""
    margin: float
    """Mean margin of held-out pairs at the end."""


@dataclass(frozen=True)
class Events:
    """What happened to a run besides its course."""

    weights_lost: bool = False
    """Weights are NaN or infinite at the end."""
    isolated: int = 0
    """Single logs that are not finite or many times their neighbours, after which training went on as before."""
    isolated_share: float = 0.0
    """Their share of all logs."""


@dataclass(frozen=True)
class Visible:
    """How much of the run its log shows."""

    logs: int
    validations: int
    """After the first step."""
    epochs: float
    steps: int


@dataclass(frozen=True)
class Label:
    """The right answer to a run, and others that are right as well."""

    expected: HealthState
    accepted: frozenset[HealthState]


def label(course: Course, seen: Course, validated: Course, events: Events, visible: Visible) -> Label:
    """Label a run.

    Args:
        course: the true course.
        seen: the course on the run's own validation pairs, and of the training pairs as the log has them: as they are
            met, and averaged between logs.
        validated: the same at the run's validations only.
        events: what else happened.
        visible: how much the log shows.

    """
    if events.weights_lost:
        return Label(UNSTABLE, frozenset({UNSTABLE}))
    expected = _first(course, events, need=1)
    views = (course, seen) if expected is UNSTABLE or not visible.validations else (course, seen, validated)
    accepted = {expected} | {_first(view, events, need=need) for view in views for need in NEEDS}
    # Of several illnesses any may be named: of those that are plain, or, of a run that is healthy, of the slight ones.
    plain = 0.5 if expected is ON_TRACK else 1
    accepted |= {illness for view in (course, seen) for illness in _illnesses(view, events, need=plain)}
    if UNSTABLE in accepted and _never_left(course):
        # Thrown about without ever learning: not having learnt is true as well.
        accepted.add(UNDERFITTING)
    if seen.accuracy < 0.37 and seen.margin < 0 and expected is ON_TRACK:
        # IPO learns from means per token: rewards, which are sums, may say the opposite of its loss. Both are true.
        accepted.add(CONFUSED)
    if OVERFITTING in accepted and visible.epochs <= 1 and seen.validation[-1] > 0.97:
        # In its first epoch a run meets no pair twice, so the log cannot show that it knows pairs by heart.
        accepted.add(UNDERFITTING)
    return _with_unknown(expected, accepted, visible)


def _with_unknown(expected: HealthState, accepted: set[HealthState], visible: Visible) -> Label:
    """Add Unknown where the log cannot show the state."""
    if visible.steps < 5:
        # Two steps show nothing; a validation may say that nothing was learnt, and a fall that something was.
        return Label(UNKNOWN, frozenset({UNKNOWN, UNDERFITTING} | (accepted & {ON_TRACK, UNSTABLE, CONFUSED})))
    if not visible.validations and expected is OVERFITTING:
        # Only held-out pairs tell, so nothing can be said; naming it from the training curve is bold but true.
        return Label(UNKNOWN, frozenset((accepted - {ON_TRACK}) | {UNKNOWN}))
    if not visible.validations and expected is CONFUSED:
        # Only held-out pairs tell; on the others it looks like any good run.
        return Label(UNKNOWN, frozenset(accepted | {UNKNOWN, ON_TRACK}))
    if not visible.validations and (visible.logs < 10 or visible.epochs > 1):
        # Pairs that the model has met before do not show what it learnt of others.
        accepted = accepted | {UNKNOWN}
    if visible.logs < 10 and visible.validations < 2:
        accepted = accepted | {UNKNOWN}
    return Label(expected, frozenset(accepted))


def _first(course: Course, events: Events, *, need: float) -> HealthState:
    return next(_illnesses(course, events, need=need), ON_TRACK)


def _illnesses(course: Course, events: Events, *, need: float) -> Iterator[HealthState]:
    """The illnesses of a run, the most serious first."""
    end, trained = course.validation[-1], course.training[-1]
    gain = 1 - end
    learnt = 1 - min(course.training[-1], 1.0)
    best = min(course.validation)
    unstable = (
        (events.isolated >= 4 * need and events.isolated_share >= 0.01 * need)
        or _swings(course, need)
        or _collapsed(course, need)
        or _diverged(course, need)
    )
    if unstable:
        yield UNSTABLE
    confused = course.accuracy < 0.5 - 0.13 * need and course.margin < 0 and end > 1 + 0.02 * need
    if confused:
        yield CONFUSED
    at_best = course.training[course.validation.index(best)]
    if not confused and (
        # It was better before, and training went on to fit its own pairs.
        (end - best > 0.06 * need and trained < at_best - 0.02 * need)
        # It fits its own pairs and nothing else.
        or (gain < 0.03 / need and learnt > 0.12 * need)
        # It fits its own pairs much better than others.
        or (end - trained > 0.5 * need and trained < (1 - 0.5 * need) * end)
    ):
        yield OVERFITTING
    # Both losses stay high. (A model that is not better than untrained and has none of the other illnesses has this.)
    if gain < 0.03 / need and learnt <= 0.12 * need and not unstable:
        yield UNDERFITTING


def _swings(course: Course, need: float) -> bool:
    """Whether training loses what it learnt again and again: on held-out pairs and on its own."""
    height, times = 0.3 * need**0.5, 1 + NEEDS.index(need)
    return min(rises(course.validation, height), rises(course.training, height / 2)) >= times


def _collapsed(course: Course, need: float) -> bool:
    """Whether what was learnt is lost again, on the training pairs as well."""
    return (
        course.validation[-1] > 1 - 0.15 / need
        and course.validation[-1] - min(course.validation) > 0.15 * need
        and course.training[-1] - min(course.training) > 0.15 * need
    )


def _diverged(course: Course, need: float) -> bool:
    """Whether the model is much worse than untrained, on the training pairs as well, or was so twice."""
    both = [min(pair) for pair in zip(course.validation, course.training, strict=True)]
    return both[-1] > 1 + 0.15 * need or sum(loss > 1 + 0.3 * need for loss in both) >= max(2, len(both) // 10)


def _never_left(course: Course) -> bool:
    return min(course.validation) > 0.9 and 0.9 < course.validation[-1] < 1.25


def rises(losses: tuple[float, ...], height: float) -> int:
    """Times that a curve rose by ``height`` from a low, each after it had fallen by as much from the high before."""
    count, rising, low, high = 0, False, losses[0], losses[0]
    for loss in losses:
        if rising:
            high = max(high, loss)
            if loss < high - height:
                rising, low = False, loss
        else:
            low = min(low, loss)
            if loss > low + height:
                rising, high, count = True, loss, count + 1
    return count
