"""When an attempt is stopped: it makes no progress, has run or waited for too long, or has lost its node."""

from dataclasses import dataclass
from datetime import UTC, datetime

from dporun_api.results import Failure
from dporun_api.text import duration, parse_time, timestamp
from dporun_api.v1alpha1.reasons import Reason
from dporun_api.v1alpha1.status import ConditionType
from dporun_operator.lifecycle.draft import Draft
from dporun_operator.lifecycle.stop import lost_pod
from dporun_operator.observed import Job, Pod


@dataclass(frozen=True)
class Exceeded:
    """A limit that an attempt has reached: its Job is to be stopped."""

    reason: Reason
    message: str

    @property
    def failure(self) -> Failure:
        """The limit as the reason for which the attempt failed."""
        return Failure(reason=self.reason, message=self.message, hint=self.reason.traits.hint)


def exceeded_while_pending(draft: Draft, job: Job, waits_for: str) -> Exceeded | None:
    """Judge an attempt that waits for nodes or its queue; ``waits_for`` says so in the words of the scheduler."""
    limit = draft.run.spec.run_policy.pending_deadline_seconds
    if limit is None:
        return None
    left = draft.seconds_left(job.waits_since or draft.now, limit)
    if left > 0:
        draft.requeue(left)
        return None
    return Exceeded(Reason.UNSCHEDULABLE, f"Attempt {job.attempt} did not start within {duration(limit)}. {waits_for}")


def exceeded_while_running(draft: Draft, job: Job, pods: tuple[Pod, ...]) -> Exceeded | None:
    """Judge an attempt whose pods run, and say whether it makes progress."""
    return _deadline(draft) or _stall(draft, job, pods)


def _deadline(draft: Draft) -> Exceeded | None:
    """Only the time counts in which pods ran, that of earlier attempts included."""
    limit = draft.run.spec.run_policy.active_deadline_seconds
    if limit is None:
        return None
    began = parse_time(draft.status.attempt_start_time) or draft.now
    left = draft.seconds_left(began, limit - (draft.status.active_seconds or 0))
    if left > 0:
        draft.requeue(left)
        return None
    return Exceeded(Reason.DEADLINE_EXCEEDED, f"Training ran for {duration(limit)}, all attempts together.")


def _stall(draft: Draft, job: Job, pods: tuple[Pod, ...]) -> Exceeded | None:
    """A pod that answers but reports nothing new has stalled; one that does not answer may be well."""
    limit = draft.run.spec.run_policy.stall_seconds
    started = max((pod.main.started_at for pod in pods if pod.main.started_at), default=draft.now)
    progress, last = draft.observed.progress, draft.status.progress
    if progress is None:
        heard = max(started, parse_time(last.updated_at if last else None) or started)
        if draft.seconds_left(heard, limit) == 0:
            words = f"The training pod has not answered since {timestamp(heard)}; it may be well."
            draft.set_condition(ConditionType.PROGRESS_STALLED, None, Reason.UNREACHABLE, words)
        return None
    heartbeat = max(started, datetime.fromtimestamp(progress.updated_at, UTC))
    if draft.seconds_left(heartbeat, limit) > 0:
        if not draft.is_false(ConditionType.PROGRESS_STALLED):
            words = "The training pod makes progress."
            draft.set_condition(ConditionType.PROGRESS_STALLED, False, Reason.IN_PROGRESS, words)
        return None
    words = f"Attempt {job.attempt} has made no progress for {duration((draft.now - heartbeat).total_seconds())}."
    draft.set_condition(ConditionType.PROGRESS_STALLED, True, Reason.STALLED, words)
    return Exceeded(Reason.STALLED, words)


def lost(draft: Draft, job: Job, pods: tuple[Pod, ...]) -> Exceeded | None:
    """Judge an attempt by its pods that are being deleted: one that does not stop in time is on a dead node.

    The Job would wait for it until the node is deleted: with a podFailurePolicy, a pod counts only once it has ended.
    """
    pod = lost_pod(draft, pods)
    if pod is None:
        return None
    words = f"Pod {pod.name} of attempt {job.attempt} was deleted and does not stop; its node does not answer."
    return Exceeded(Reason.NODE_LOST, words)


def begin_active_time(draft: Draft, pods: tuple[Pod, ...]) -> None:
    """Note when the pods of an attempt began to run."""
    started = [pod.main.started_at for pod in pods if pod.main.started_at]
    if draft.status.attempt_start_time is None and started:
        draft.status.attempt_start_time = timestamp(min(started))


def end_active_time(draft: Draft, at: datetime | None) -> None:
    """Count the time for which the pods of an attempt ran until ``at``; once, however often this is called."""
    started = parse_time(draft.status.attempt_start_time)
    if started is None:
        return
    draft.status.active_seconds = (draft.status.active_seconds or 0) + max(
        0, round(((at or draft.now) - started).total_seconds())
    )
    draft.status.attempt_start_time = None
