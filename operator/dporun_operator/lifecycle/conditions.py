"""Conditions: how one changes, and what each says before anything is known, so that all of them can be waited for."""

from collections.abc import Mapping
from datetime import datetime
from typing import Literal

from dporun_api.text import shorten, timestamp
from dporun_api.v1alpha1.reasons import Reason
from dporun_api.v1alpha1.status import Condition, ConditionType
from dporun_operator import names

HELD = f"A deleted run stays, by its finalizer {names.FINALIZER}, until the operator has"
"""Said before a run is deleted, for those who delete it when no operator runs that could say so."""

INITIAL: Mapping[ConditionType, tuple[bool | None, Reason, str]] = {
    ConditionType.ACCEPTED: (False, Reason.PENDING, "The run has not been checked yet."),
    ConditionType.PREPARED: (False, Reason.PENDING, "Model and data have not been prepared yet."),
    ConditionType.FITS: (None, Reason.UNKNOWN, "How much memory training needs is known once the model is prepared."),
    ConditionType.SCHEDULED: (False, Reason.PENDING, "The training pods have no nodes yet."),
    ConditionType.RUNNING: (False, Reason.PENDING, "No training pod runs."),
    ConditionType.TENSORBOARD_READY: (False, Reason.PENDING, "No pod serves TensorBoard at the moment."),
    ConditionType.EVALUATED: (False, Reason.PENDING, "The result has not been evaluated yet."),
    ConditionType.HEALTHY: (None, Reason.UNKNOWN, "There are no curves to judge yet."),
    ConditionType.ARCHIVED: (
        False,
        Reason.PENDING,
        f"Nothing has been archived yet. {HELD} archived what there is of it.",
    ),
    ConditionType.PROGRESS_STALLED: (False, Reason.NOT_NEEDED, "No attempt has stalled."),
    ConditionType.SUSPENDED: (False, Reason.NOT_NEEDED, "The run is not suspended."),
    ConditionType.SUCCEEDED: (None, Reason.UNKNOWN, "The run has not finished."),
    ConditionType.FINISHED: (False, Reason.IN_PROGRESS, "The run has not finished."),
}
"""Status, reason and message of each condition before anything is known."""

_TEXT: dict[bool | None, Literal["True", "False", "Unknown"]] = {True: "True", False: "False", None: "Unknown"}


def transition(
    before: Condition | None,
    kind: ConditionType,
    value: bool | None,
    reason: Reason,
    message: str,
    *,
    generation: int,
    now: datetime,
) -> Condition:
    """A condition's new state; its transition time is that of the last change of its status."""
    status = _TEXT[value]
    since = before.last_transition_time if before and before.status == status else timestamp(now)
    return Condition(
        type=kind,
        status=status,
        reason=reason.value,
        message=shorten(message, 1024),
        last_transition_time=since,
        observed_generation=generation,
    )


def complete(known: Mapping[ConditionType, Condition], *, generation: int, now: datetime) -> tuple[Condition, ...]:
    """All conditions in their order: those that are known, the others as they are before anything is."""
    return tuple(
        known.get(kind) or transition(None, kind, *INITIAL[kind], generation=generation, now=now)
        for kind in ConditionType
    )
