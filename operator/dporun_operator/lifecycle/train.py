"""Training, evaluation included: one Job per attempt, until one is done or no other makes sense."""

from datetime import UTC, datetime

from dporun_api.results import Health, HealthState, Outcome, Progress, Stage
from dporun_api.text import capitalise, duration, sentence, timestamp
from dporun_api.v1alpha1.reasons import Reason
from dporun_api.v1alpha1.status import ConditionType, ProgressStatus
from dporun_operator.lifecycle import limits, messages, queue, retries, volume, waiting
from dporun_operator.lifecycle.draft import Draft
from dporun_operator.lifecycle.ending import Ending, judge_ending
from dporun_operator.lifecycle.step import Step
from dporun_operator.lifecycle.stop import still_running
from dporun_operator.names import Component
from dporun_operator.objects.train_job import train_job
from dporun_operator.observed import Job, Pod


def train(draft: Draft) -> Step:
    """Start an attempt, follow it, and judge how it ended."""
    if draft.trained:
        return Step.DONE
    attempt = draft.status.attempt or 1
    job = draft.observed.job(Component.TRAIN, attempt)
    if job is None:
        if not _stop_earlier_attempts(draft, attempt):
            _start(draft, attempt)
        return Step.WAITING
    pods = tuple(pod for pod in draft.observed.pods_of(Component.TRAIN, attempt) if pod.controller == job.uid)
    if not job.finished:
        return _replace_volume(draft, job) if volume.can_be_replaced(draft, pods) else _follow(draft, job, pods)
    if not retries.is_settled(draft, job, pods):
        _await_ending(draft, job, pods)
        return Step.WAITING
    end = judge_ending(job, pods, draft.run.spec)
    limits.end_active_time(draft, job.finished_at)
    if end.outcome:
        _record(draft, end.outcome)
    if end.succeeded:
        _complete(draft, end.outcome)
        return Step.DONE
    return _try_again(draft, job, end, attempt)


def _stop_earlier_attempts(draft: Draft, attempt: int) -> bool:
    """Stop what runs before ``attempt`` has a Job: two of them must never write to the volume. True while they do.

    A pod of the same attempt is left of a Job that somebody has deleted, or that a suspension has.
    """
    jobs = [job for job in draft.observed.jobs_of(Component.TRAIN) if job.attempt < attempt and not job.finished]
    pods = still_running(draft, before=attempt + 1)
    for job in jobs:
        draft.delete("Job", job.name)
    if jobs or pods:
        why = f"{sentence(draft.status.failure.message)} " if draft.status.failure else ""
        draft.set_message(f"{why}Attempt {attempt} starts as soon as the pods of the one before have stopped")
    return bool(jobs or pods)


def _start(draft: Draft, attempt: int) -> None:
    uploaded = draft.status.checkpoint_upload
    step = uploaded.step if uploaded else None
    draft.create(train_job(draft.run, draft.settings, attempt, uploaded=step, memory=draft.status.memory))
    for old in draft.observed.jobs_of(Component.TRAIN):
        if old.attempt < attempt - 1:
            draft.delete("Job", old.name)
    status = draft.status
    status.attempt = attempt
    status.retries = status.retries or 0
    status.preemptions = status.preemptions or 0
    draft.reset_condition(ConditionType.SCHEDULED)
    draft.reset_condition(ConditionType.RUNNING)
    draft.set_message(messages.starting(draft.run, attempt, status.failure))


def _follow(draft: Draft, job: Job, pods: tuple[Pod, ...]) -> Step:
    """Say how an attempt is doing."""
    if lost := limits.lost(draft, job, pods):
        return _stop_exceeding(draft, job, lost)
    if job.suspended:
        return _await_queue(draft, job)
    step = waiting.explain(draft, job, pods)
    if step is Step.WAITING and not draft.is_true(ConditionType.SCHEDULED):
        return _stop_exceeding(draft, job, limits.exceeded_while_pending(draft, job, draft.status.message or ""))
    if step is not Step.DONE:
        return step
    waiting.mark_scheduled(draft, job, pods)
    if not any(pod.main.running for pod in pods):
        _await_ending(draft, job, pods)
        return Step.WAITING
    draft.status.failure = None
    limits.begin_active_time(draft, pods)
    draft.requeue(draft.settings.progress_seconds)
    if draft.observed.progress is not None:
        _record_progress(draft, draft.observed.progress)
    stopped = next((pod for pod in pods if pod.stops_at and not pod.ended), None)
    words = messages.pod_stops(stopped, job.attempt) if stopped else f"Attempt {job.attempt} runs."
    draft.set_condition(ConditionType.RUNNING, True, Reason.TRAINING, words)
    draft.set_message(words if stopped else messages.training(draft, job.attempt))
    return _stop_exceeding(draft, job, limits.exceeded_while_running(draft, job, pods))


def _replace_volume(draft: Draft, job: Job) -> Step:
    """Give up an attempt whose volume is gone, for one on another volume; that is no failure of the run."""
    draft.status.preemptions = (draft.status.preemptions or 0) + 1
    why = f"PersistentVolumeClaim {draft.run.claim_name} was deleted and is made again."
    volume.prepare_anew(draft, job.attempt + 1, why)
    return Step.WAITING


def _await_ending(draft: Draft, job: Job, pods: tuple[Pod, ...]) -> None:
    """Say that an attempt has ended, while it is not known how: its pods are gone, or the Job has not followed yet."""
    if any(pod.main.running for pod in pods):
        return
    words = messages.pods_ended(job.attempt)
    draft.set_condition(ConditionType.RUNNING, False, Reason.ENDING, words)
    draft.set_message(words)


def _await_queue(draft: Draft, job: Job) -> Step:
    """Say what the queue waits for. A Job that would only fail once it is admitted makes place for another attempt."""
    words = queue.wait(draft, job)
    if not job.doomed:
        return _stop_exceeding(draft, job, limits.exceeded_while_pending(draft, job, words))
    draft.status.attempt = job.attempt + 1
    _stop_earlier_attempts(draft, draft.status.attempt)
    return Step.WAITING


def _stop_exceeding(draft: Draft, job: Job, limit: limits.Exceeded | None) -> Step:
    """Stop an attempt that has reached a limit: its pods save a checkpoint if they can, then the next one begins."""
    if limit is None:
        return Step.WAITING
    limits.end_active_time(draft, draft.now)
    status, failure = draft.status, limit.failure
    if not retries.is_allowed(draft, failure):
        draft.set_condition(ConditionType.RUNNING, False, failure.reason, failure.message)
        draft.fail(failure)
        return Step.GAVE_UP
    status.failure, status.retries, status.attempt = failure, (status.retries or 0) + 1, job.attempt + 1
    draft.set_condition(ConditionType.RUNNING, False, Reason.RETRYING, failure.message)
    _stop_earlier_attempts(draft, status.attempt)
    return Step.WAITING


def _record_progress(draft: Draft, progress: Progress) -> None:
    """Keep what the first training pod says of itself while it runs."""
    status = draft.status
    status.progress = _progress_status(progress, draft.now)
    status.metrics = progress.metrics
    status.best_checkpoint = progress.best_checkpoint or status.best_checkpoint
    status.checkpoint_upload = progress.checkpoint_upload or status.checkpoint_upload
    status.resumed_from = progress.resumed_from or status.resumed_from
    _record_health(draft, progress.health)
    if progress.stage in {Stage.EVALUATING, Stage.REPORTING}:
        doing = messages.evaluating(progress)
        draft.set_condition(ConditionType.EVALUATED, False, Reason.EVALUATING, sentence(doing))


def _progress_status(progress: Progress, now: datetime) -> ProgressStatus:
    """``progress`` as the status has it."""
    updated_at = datetime.fromtimestamp(min(progress.updated_at, now.timestamp()), UTC)
    return ProgressStatus(
        percent=round(progress.percent, 1),
        step=progress.step,
        total_steps=progress.total_steps,
        epoch=round(progress.epoch, 3),
        eta_seconds=None if progress.eta_seconds is None else round(progress.eta_seconds),
        samples_per_second=progress.samples_per_second,
        updated_at=timestamp(updated_at),
    )


def _record_health(draft: Draft, health: Health | None) -> None:
    if health is None:
        return
    draft.status.health = health
    known = None if health.state is HealthState.UNKNOWN else health.state is HealthState.ON_TRACK
    nothing = "The curves do not tell yet." if known is None else "See status.health."
    words = " ".join(sentence(capitalise(piece)) for piece in health.evidence[:2]) or nothing
    draft.set_condition(ConditionType.HEALTHY, known, Reason(health.state), words)


def _record(draft: Draft, outcome: Outcome) -> None:
    """Keep what an attempt said at its end; a field that it left unset keeps its previous value."""
    status = draft.status
    status.metrics = outcome.metrics or status.metrics
    status.best_checkpoint = outcome.best_checkpoint or status.best_checkpoint
    status.checkpoint_upload = outcome.checkpoint_upload or status.checkpoint_upload
    status.evaluation = outcome.evaluation or status.evaluation
    status.verdict = outcome.verdict or status.verdict
    status.dataset = outcome.dataset or status.dataset
    status.resumed_from = outcome.resumed_from or status.resumed_from
    _record_health(draft, outcome.health)


def _complete(draft: Draft, outcome: Outcome | None) -> None:
    status = draft.status
    status.training_completion_time = timestamp(draft.now)
    status.failure = None
    progress = status.progress or ProgressStatus()
    steps = max(progress.total_steps, outcome.step or 0) if outcome else progress.total_steps
    done = {"percent": 100.0, "step": steps, "total_steps": steps, "eta_seconds": None}
    status.progress = progress.model_copy(update=done)
    draft.set_condition(ConditionType.SCHEDULED, True, Reason.SCHEDULED, "Every pod of the run has a node.")
    words = (outcome.message if outcome else "") or "Training is done"
    draft.set_condition(ConditionType.RUNNING, False, Reason.COMPLETED, sentence(words))
    if not draft.run.spec.evaluation.enabled:
        draft.set_condition(
            ConditionType.EVALUATED, False, Reason.SKIPPED, "The result was not evaluated: evaluation.enabled is false."
        )
    elif status.verdict is not None:
        words = f"{status.verdict.state}: {' '.join(status.verdict.reasons[:3])}"
        draft.set_condition(ConditionType.EVALUATED, True, Reason.EVALUATED, words)
    else:
        words = "The result was compared with the base model."
        draft.set_condition(ConditionType.EVALUATED, True, Reason.EVALUATED, words)


def _try_again(draft: Draft, job: Job, end: Ending, attempt: int) -> Step:
    """Begin the next attempt when its time has come; give up where it makes no sense."""
    status = draft.status
    draft.reset_condition(ConditionType.EVALUATED)
    retry = retries.next_try(draft, job, end, what=f"Attempt {attempt}")
    lost = volume.lost_checkpoint(draft, end.failure)
    if retry is None or lost:
        if failure := lost or end.failure:
            draft.fail(failure)
        return Step.GAVE_UP
    status.failure = end.failure or status.failure
    draft.set_condition(ConditionType.RUNNING, False, retry.reason, sentence(retry.words))
    draft.set_message(
        f"{retry.words.rstrip('.')}; attempt {attempt + 1} starts in {duration(retry.wait)} from the newest checkpoint"
    )
    if retry.wait > 0:
        draft.requeue(retry.wait)
        return Step.WAITING
    if _stop_earlier_attempts(draft, attempt + 1):
        return Step.WAITING
    status.retries, status.preemptions = retry.retries, retry.preemptions
    if end.failure and end.failure.reason is Reason.NOT_PREPARED:
        volume.prepare_anew(draft, attempt + 1, f"PersistentVolumeClaim {draft.run.claim_name} is empty.")
    else:
        _start(draft, attempt + 1)
    return Step.WAITING
