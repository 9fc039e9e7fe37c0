"""Suspension: the pods save a checkpoint and stop; the attempt goes on from there when the run is resumed."""

from dporun_api.v1alpha1.reasons import Reason
from dporun_api.v1alpha1.status import ConditionType
from dporun_operator.lifecycle import messages
from dporun_operator.lifecycle.draft import Draft
from dporun_operator.lifecycle.limits import end_active_time
from dporun_operator.lifecycle.step import Step
from dporun_operator.lifecycle.stop import is_awaited
from dporun_operator.names import Component

_WORK = (Component.PREPARE, Component.TRAIN)


def suspend(draft: Draft) -> Step:
    """Stop what runs, if asked to; what has trained is not stopped any more."""
    if not draft.run.spec.suspend:
        before = draft.condition(ConditionType.SUSPENDED)
        if before.status == "True" or before.reason == Reason.SUSPENDING:
            _resume(draft)
        return Step.DONE
    jobs = [job for component in _WORK for job in draft.observed.jobs_of(component)]
    if draft.trained or any(job.component == Component.TRAIN and job.succeeded for job in jobs):
        words = "Training is done: nothing is left to suspend."
        draft.set_condition(ConditionType.SUSPENDED, False, Reason.NOT_NEEDED, words)
        return Step.DONE
    active = [job for job in jobs if not job.finished]
    for job in active:
        draft.delete("Job", job.name)
    end_active_time(draft, draft.now)
    pods = [pod for component in _WORK for pod in draft.observed.pods_of(component) if not pod.ended]
    awaited = [pod for pod in pods if is_awaited(draft, pod)]
    if active or awaited:
        words = f"Suspending: {messages.stopping(active, awaited)}."
        draft.set_condition(ConditionType.SUSPENDED, False, Reason.SUSPENDING, words)
        draft.set_message(words)
        return Step.WAITING
    words = "The run is suspended and holds no node."
    draft.set_condition(ConditionType.SUSPENDED, True, Reason.SUSPENDED, words)
    for kind in (ConditionType.PREPARED, ConditionType.SCHEDULED, ConditionType.RUNNING, ConditionType.EVALUATED):
        if kind is not ConditionType.PREPARED or not draft.is_true(kind):
            draft.set_condition(kind, False, Reason.SUSPENDED, words)
    draft.set_message(messages.suspended(draft.run))
    return Step.WAITING


def _resume(draft: Draft) -> None:
    draft.set_condition(ConditionType.SUSPENDED, False, Reason.RESUMED, "The run goes on.")
    for kind in (ConditionType.RUNNING, ConditionType.SCHEDULED, ConditionType.EVALUATED):
        draft.reset_condition(kind)
