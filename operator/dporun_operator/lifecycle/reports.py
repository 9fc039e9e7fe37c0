"""Which reports of a training pod are worth a write: the numbers change with every step, and a long run has many."""

from dporun_api.text import parse_time
from dporun_api.v1alpha1.reasons import Phase
from dporun_api.v1alpha1.status import ConditionType, DPORunStatus

REPORT_SECONDS = 30
REPORT_PERCENT = 25
"""Other numbers alone are written when they are this much later or further than those last written."""

_WORDS_OF_NUMBERS = {ConditionType.HEALTHY, ConditionType.EVALUATED}
"""Conditions whose messages name the newest numbers."""


def is_worth_writing(before: DPORunStatus, after: DPORunStatus) -> bool:
    """Whether ``after`` says something new of a run that trains, or something old anew after a while.

    Conditions, the first checkpoint and the like are written at once; of a run that does not train, everything is.
    """
    then, now = before.progress, after.progress
    if then is None or now is None or after.phase not in {Phase.TRAINING, Phase.EVALUATING}:
        return True
    if _without_numbers(before) != _without_numbers(after) or then.total_steps != now.total_steps:
        return True
    written, reported = parse_time(then.updated_at), parse_time(now.updated_at)
    late = written is None or (reported is not None and (reported - written).total_seconds() >= REPORT_SECONDS)
    return late or abs(now.percent - then.percent) >= REPORT_PERCENT


def _without_numbers(status: DPORunStatus) -> tuple[object, ...]:
    """All of a status that is written at once; phase, columns and the run's message follow from the rest."""
    conditions = [
        c.model_copy(update={"message": ""} if c.type in _WORDS_OF_NUMBERS else {}) for c in status.conditions
    ]
    numbers = dict.fromkeys(("conditions", "progress", "metrics", "best_checkpoint", "health", "summary", "message"))
    health = status.health.state if status.health else None
    return status.model_copy(update=numbers), conditions, health, status.best_checkpoint is None
