"""Whether and when to try again what has failed or was stopped."""

from dataclasses import dataclass

from dporun_api.results import Failure
from dporun_api.v1alpha1.reasons import Reason
from dporun_operator.lifecycle.draft import Draft
from dporun_operator.lifecycle.ending import Ending
from dporun_operator.observed import Job, Pod

SETTLE_SECONDS = 30.0
"""A Job's end may be seen before its pod's, as they come by two watches; the second is awaited for so long."""

FIRST_DELAY_SECONDS = 10.0
LONGEST_DELAY_SECONDS = 300.0


@dataclass(frozen=True, kw_only=True)
class Retry:
    """Another try at what has ended before it was done; a run has one budget of them, ``runPolicy.maxRetries``."""

    reason: Reason
    """RETRYING, or PREEMPTED where the end was no failure of the run."""
    words: str
    """What ended, and why."""
    wait: float
    """Seconds until the next try."""
    retries: int
    """``status.retries`` from the next try on."""
    preemptions: int
    """``status.preemptions``, likewise."""


def next_try(draft: Draft, job: Job, end: Ending, *, what: str) -> Retry | None:
    """Decide about another try after ``job``, the ``what`` of a run, ended so; None where that makes no sense."""
    retries, preemptions = draft.status.retries or 0, draft.status.preemptions or 0
    if end.failure is None:
        reason, words, preemptions = Reason.PREEMPTED, f"{what} was preempted: {end.preempted}", preemptions + 1
        tries = preemptions
    elif is_allowed(draft, end.failure):
        words = f"{what} failed ({end.failure.reason}: {end.failure.message.rstrip('.')})"
        reason, retries = Reason.RETRYING, retries + 1
        tries = retries
    else:
        return None
    wait = draft.seconds_left(job.finished_at, delay(tries))
    return Retry(reason=reason, words=words, wait=wait, retries=retries, preemptions=preemptions)


def is_allowed(draft: Draft, failure: Failure) -> bool:
    """Whether the same may succeed when tried again, and the run allows another try."""
    return failure.reason.traits.retried and (draft.status.retries or 0) < draft.run.spec.run_policy.max_retries


def delay(failures: int) -> float:
    """Seconds to wait after the given number of failures in a row (at least 1): 10, 20, 40, … up to 300."""
    return float(min(FIRST_DELAY_SECONDS * 2.0 ** min(failures - 1, 10), LONGEST_DELAY_SECONDS))


def is_settled(draft: Draft, job: Job, pods: tuple[Pod, ...]) -> bool:
    """Whether all evidence of how ``job`` ended is in; asks to look again when it is not."""
    ended = all(pod.ended for pod in pods)
    if job.finished_at is None:  # it does not say that it is over, which takes no time as a rule
        return ended
    wait = draft.seconds_left(job.finished_at, SETTLE_SECONDS)
    if wait == 0 or (pods and ended):
        return True
    draft.requeue(min(wait, 5.0))
    return False
