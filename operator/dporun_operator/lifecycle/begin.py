"""The beginning: every condition has a value, so that all of them can be waited for."""

from dporun_api.text import timestamp
from dporun_api.v1alpha1.reasons import Reason
from dporun_api.v1alpha1.status import ConditionType
from dporun_operator.lifecycle.draft import Draft
from dporun_operator.lifecycle.step import Step

INITIAL: dict[ConditionType, tuple[bool | None, Reason]] = {
    ConditionType.ACCEPTED: (False, Reason.PENDING),
    ConditionType.PREPARED: (False, Reason.PENDING),
    ConditionType.SCHEDULED: (False, Reason.PENDING),
    ConditionType.RUNNING: (False, Reason.PENDING),
    ConditionType.TENSORBOARD_READY: (False, Reason.PENDING),
    ConditionType.EVALUATED: (False, Reason.PENDING),
    ConditionType.HEALTHY: (None, Reason.UNKNOWN),
    ConditionType.ARCHIVED: (False, Reason.PENDING),
    ConditionType.PROGRESS_STALLED: (False, Reason.NOT_NEEDED),
    ConditionType.SUSPENDED: (False, Reason.NOT_NEEDED),
    ConditionType.SUCCEEDED: (None, Reason.UNKNOWN),
    ConditionType.FINISHED: (False, Reason.IN_PROGRESS),
}
"""Status and reason of each condition before anything is known."""


def begin(draft: Draft) -> Step:
    """Give every condition that has none its first value, and note when the first pod was created."""
    for kind, (value, reason) in INITIAL.items():
        if draft.condition(kind) is None:
            draft.set_condition(kind, value, reason)
    created = [pod.created_at for pod in draft.observed.pods if pod.created_at]
    if draft.status.start_time is None and created:
        draft.status.start_time = timestamp(min(created))
    return Step.DONE
