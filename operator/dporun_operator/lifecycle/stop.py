"""What a run that ends must wait for: that nothing writes to its volume any more."""

from collections.abc import Iterable

from dporun_api.text import capitalise
from dporun_api.v1alpha1.reasons import Reason
from dporun_api.v1alpha1.status import ConditionType
from dporun_operator.lifecycle import messages
from dporun_operator.lifecycle.draft import Draft
from dporun_operator.lifecycle.step import Step
from dporun_operator.names import Component
from dporun_operator.observed import Pod

OVERDUE_SECONDS = 60.0
"""A pod that has not stopped so long after its grace period is on a node that does not answer: nobody waits for it."""


def stop(draft: Draft) -> Step:
    """Stop what a failed run has left running, and wait until nothing trains or will.

    A training Job without a pod may get one later: its queue may start it when the run has finished.
    """
    jobs = [job for component in (Component.PREPARE, Component.TRAIN) for job in draft.observed.jobs_of(component)]
    active = [job for job in jobs if not job.finished]
    for job in active:
        draft.delete("Job", job.name)
    training, pods = [job for job in active if job.component == Component.TRAIN], still_running(draft)
    if not training and not pods:
        return Step.DONE
    words = f"{capitalise(messages.stopping(training, pods))}."
    draft.set_condition(ConditionType.ARCHIVED, False, Reason.ARCHIVING, words)
    draft.set_message(f"{messages.of_failure(draft.status.failure) or ''} {words}".strip())
    return Step.WAITING


def still_running(draft: Draft, component: Component = Component.TRAIN, *, before: int | None = None) -> list[Pod]:
    """Pods that have not stopped, whether or not their Job still exists; only of attempts ``before`` that one."""
    pods = draft.observed.pods_of(component)
    running = [pod for pod in pods if not pod.ended and (before is None or pod.attempt < before)]
    return [pod for pod in running if is_awaited(draft, pod)]


def is_awaited(draft: Draft, pod: Pod) -> bool:
    """Whether ``pod`` is waited for: it is not overdue. Asks to look again when it will be."""
    if pod.stops_at is None:
        return True
    left = draft.seconds_left(pod.stops_at, OVERDUE_SECONDS)
    if left > 0:
        draft.requeue(left)
    return left > 0


def lost_pod(draft: Draft, pods: Iterable[Pod]) -> Pod | None:
    """The first of ``pods`` that is on a node that does not answer."""
    return next((pod for pod in pods if not pod.ended and not is_awaited(draft, pod)), None)
