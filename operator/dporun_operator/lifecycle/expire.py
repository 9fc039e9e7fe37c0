"""Expiry: a run that has been finished for ``runPolicy.ttlSecondsAfterFinished`` is deleted."""

from dporun_api.text import parse_time
from dporun_api.v1alpha1.status import ConditionType
from dporun_operator.lifecycle.draft import Draft
from dporun_operator.lifecycle.step import Step


def expire(draft: Draft) -> Step:
    """Delete the run when its time has come."""
    seconds = draft.run.spec.run_policy.ttl_seconds_after_finished
    if seconds is None or not draft.is_true(ConditionType.FINISHED):
        return Step.DONE
    left = draft.seconds_left(parse_time(draft.status.completion_time), seconds)
    if left > 0:
        draft.requeue(left)
        return Step.WAITING
    draft.delete_run = True
    return Step.DONE
