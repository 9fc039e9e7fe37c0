"""Recall: a status write may be lost (the operator was killed, the write refused, another one overtook it).

What is seen beats what was written: the children say which attempt is under way.
"""

from dporun_api.text import timestamp
from dporun_operator.lifecycle.draft import Draft
from dporun_operator.names import Component


def recall(draft: Draft) -> None:
    """Make the status agree with the Jobs and pods that exist.

    How the attempts before ended is not known any more; those that were no preemption count as retries, so that a
    limit is reached too early rather than never.
    """
    status, observed = draft.status, draft.observed
    attempts = [job.attempt for job in observed.jobs_of(Component.TRAIN)]
    attempts += [pod.attempt for pod in observed.pods_of(Component.TRAIN)]
    newest = max(attempts, default=0)
    if newest > (status.attempt or 0):
        status.attempt = newest
        status.preemptions = status.preemptions or 0
        status.retries = max(status.retries or 0, newest - 1 - status.preemptions)
    prepared = max((job.attempt for job in observed.jobs_of(Component.PREPARE)), default=1)
    repeated = prepared - 1 - (status.preemptions or 0)
    if repeated > (status.retries or 0):
        status.retries = repeated
    created = [job.created_at for job in observed.jobs if job.created_at]
    if status.start_time is None and created:
        status.start_time = timestamp(min(created))
