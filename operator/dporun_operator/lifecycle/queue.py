"""Waiting in a queue: Kueue keeps an attempt's Job suspended until it has quota for it, and may take the quota back."""

from dporun_api.text import sentence
from dporun_api.v1alpha1.reasons import Reason
from dporun_api.v1alpha1.status import ConditionType
from dporun_operator.lifecycle import limits
from dporun_operator.lifecycle.draft import Draft
from dporun_operator.observed import Job

LOOK_SECONDS = 60.0
"""How often to ask what the queue waits for: its words change without an event about the Job."""
FIRST_LOOK_SECONDS = 5.0
"""The same, while the Job is new to the queue."""
NEW_SECONDS = 30.0


def wait(draft: Draft, job: Job) -> str:
    """Say what a suspended Job waits for, in Kueue's words where it has some, and return that.

    Where its pods had run, the queue has taken its nodes back: the same Job goes on when it is admitted again, from
    the newest checkpoint, so this is a preemption but no new attempt.
    """
    name, message = draft.run.spec.scheduling.queue_name, draft.observed.queue_message
    words = f"Waiting in queue {name} for its quota" if name else "The Job is suspended"
    if message is not None:
        words = f"Waiting in queue {name}: {sentence(message)}"
    draft.set_condition(ConditionType.SCHEDULED, False, Reason.QUEUED, words)
    running = draft.condition(ConditionType.RUNNING)
    if draft.status.attempt_start_time is not None:
        limits.end_active_time(draft, draft.now)
        draft.status.preemptions = (draft.status.preemptions or 0) + 1
        preempted = f"Attempt {job.attempt} was preempted: queue {name} has taken its nodes back."
        draft.set_condition(ConditionType.RUNNING, False, Reason.PREEMPTED, preempted)
    elif running is None or running.reason != Reason.PREEMPTED:
        draft.reset_condition(ConditionType.RUNNING)
    draft.set_message(words)
    new = draft.seconds_left(job.waits_since, NEW_SECONDS) > 0
    draft.requeue(FIRST_LOOK_SECONDS if new else LOOK_SECONDS)
    return words
