"""When to try again."""

from dporun_operator.lifecycle.draft import Draft
from dporun_operator.observed import Job, Pod

SETTLE_SECONDS = 30.0
"""A Job's end may be seen before its pod's, as they come by two watches; the second is awaited for so long."""

FIRST_DELAY_SECONDS = 10.0
LONGEST_DELAY_SECONDS = 300.0


def delay(failures: int) -> float:
    """Seconds to wait after the given number of failures in a row (at least 1): 10, 20, 40, … up to 300."""
    return float(min(FIRST_DELAY_SECONDS * 2.0 ** min(failures - 1, 10), LONGEST_DELAY_SECONDS))


def is_settled(draft: Draft, job: Job, pods: tuple[Pod, ...]) -> bool:
    """Whether all evidence of how ``job`` ended is in; asks to look again when it is not."""
    wait = draft.seconds_left(job.finished_at, SETTLE_SECONDS)
    if wait == 0 or (pods and all(pod.ended for pod in pods)):
        return True
    draft.requeue(min(wait, 5.0))
    return False
