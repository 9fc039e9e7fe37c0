"""Which training pods still write to the volume."""

from dporun_operator.lifecycle.draft import Draft
from dporun_operator.names import Component
from dporun_operator.observed import Pod

OVERDUE_SECONDS = 60.0
"""A pod that has not stopped so long after its grace period is on a node that does not answer: nobody waits for it."""


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
