"""What a run that ends must wait for: that nothing writes to its volume any more."""

from dporun_api.v1alpha1.reasons import Reason
from dporun_api.v1alpha1.status import ConditionType
from dporun_operator.lifecycle.draft import Draft
from dporun_operator.lifecycle.step import Step
from dporun_operator.names import Component
from dporun_operator.observed import Pod

OVERDUE_SECONDS = 60.0
"""A pod that has not stopped so long after its grace period is on a node that does not answer: nobody waits for it."""


def stop(draft: Draft) -> Step:
    """Stop what a failed run has left running, and wait until its training pods have stopped."""
    jobs = [job for component in (Component.PREPARE, Component.TRAIN) for job in draft.observed.jobs_of(component)]
    for job in jobs:
        if not job.finished:
            draft.delete("Job", job.name)
    if not still_running(draft):
        return Step.DONE
    words = "Waiting for the training pods to stop"
    draft.set_condition(ConditionType.ARCHIVED, False, Reason.ARCHIVING, f"{words}.")
    draft.set_message(words)
    return Step.WAITING


def still_running(draft: Draft, *, before: int | None = None) -> list[Pod]:
    """Training pods that have not stopped; only those of attempts ``before`` that one, where it is given.

    Asks to look again when the first of them is overdue.
    """
    running = []
    for pod in draft.observed.pods_of(Component.TRAIN):
        if pod.ended or (before is not None and pod.attempt >= before):
            continue
        if pod.stops_at is not None:
            left = draft.seconds_left(pod.stops_at, OVERDUE_SECONDS)
            if left == 0:
                continue
            draft.requeue(left)
        running.append(pod)
    return running
