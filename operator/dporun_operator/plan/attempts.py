"""The stage of a run that trains: one Job per attempt, until one is done or no other makes sense."""

from datetime import UTC, datetime

from dporun_api.results import HealthState, Outcome, Progress, Stage
from dporun_api.text import duration, timestamp
from dporun_api.v1alpha1.status import ConditionType, ProgressStatus
from dporun_operator.names import Component
from dporun_operator.plan import ending, messages, retries, status, training_job, waiting
from dporun_operator.plan.draft import Draft
from dporun_operator.plan.observed import Job, Pod

HEARTBEAT_SECONDS = 60
"""A heartbeat that brings nothing new is written to the status no more often than this."""


def train(draft: Draft) -> bool:
    """Train, evaluate and judge: one Job per attempt, until one is done or no other makes sense."""
    if draft.failed or draft.trained:
        return True
    attempt = draft.get("attempt") or 1
    job = draft.observed.job(Component.TRAIN, attempt)
    if job is None:
        _start(draft, attempt)
        return False
    pods = draft.observed.pods_of(Component.TRAIN, attempt)
    if not job.finished:
        _follow(draft, job, pods)
        return draft.failed
    if not retries.settled(draft, job, pods):
        return False
    end = ending.of(job, pods, draft.run.spec)
    if end.outcome:
        _record(draft, end.outcome)
    if end.succeeded:
        _complete(draft, end.outcome)
        return True
    return _try_again(draft, job, end, attempt)


def _start(draft: Draft, attempt: int) -> None:
    draft.create(training_job.training_job(draft.run, draft.settings, attempt))
    for old in draft.observed.jobs_of(Component.TRAIN):
        if old.attempt < attempt - 1:
            draft.delete("Job", old.name)
    draft.update(attempt=attempt, retries=draft.get("retries") or 0, preemptions=draft.get("preemptions") or 0)
    draft.set(ConditionType.SCHEDULED, False, "Pending")
    draft.set(ConditionType.RUNNING, False, "Pending")
    draft.tell(messages.starting(draft.run, attempt, draft.get("failure")))


def _follow(draft: Draft, job: Job, pods: tuple[Pod, ...]) -> None:
    """Say how an attempt is doing."""
    if job.suspended:
        queue = draft.run.spec.scheduling.queue_name
        words = f"Waiting in queue {queue} for its quota" if queue else "The Job is suspended"
        draft.set(ConditionType.SCHEDULED, False, "Queued", words)
        draft.set(ConditionType.RUNNING, False, "Pending")
        draft.tell(words)
        return
    if waiting.explain(draft, job, pods):
        return
    waiting.mark_scheduled(draft, job, pods)
    if not any(pod.main.running for pod in pods):
        return
    draft.set(ConditionType.RUNNING, True, "Training", f"Attempt {job.attempt} runs.")
    draft.update(failure=None)
    draft.requeue(draft.settings.progress_seconds)
    if draft.observed.progress is not None:
        _progress(draft, draft.observed.progress)
    draft.tell(messages.training(draft, job.attempt))


def _progress(draft: Draft, progress: Progress) -> None:
    before: ProgressStatus | None = draft.get("progress")
    updated_at = datetime.fromtimestamp(min(progress.updated_at, draft.now.timestamp()), UTC)
    now = ProgressStatus(
        percent=round(progress.percent, 1),
        step=progress.step,
        total_steps=progress.total_steps,
        epoch=round(progress.epoch, 3),
        eta_seconds=None if progress.eta_seconds is None else round(progress.eta_seconds),
        samples_per_second=progress.samples_per_second,
        updated_at=timestamp(updated_at),
    )
    if before and before.updated_at:
        unchanged = before == now.model_copy(update={"updated_at": before.updated_at})
        recent = (updated_at - datetime.fromisoformat(before.updated_at)).total_seconds() < HEARTBEAT_SECONDS
        now = before if unchanged and recent else now
    best = progress.best_checkpoint or draft.get("best_checkpoint")
    draft.update(progress=now, metrics=progress.metrics, best_checkpoint=best)
    if progress.resumed_from:
        draft.update(resumed_from=progress.resumed_from)
    if progress.health:
        _health(draft, progress)
    if progress.stage in {Stage.EVALUATING, Stage.REPORTING}:
        draft.set(ConditionType.EVALUATED, False, status.EVALUATING, progress.detail or "Base and tuned are compared.")


def _health(draft: Draft, source: Progress | Outcome) -> None:
    health = source.health
    if health is None:
        return
    draft.update(health=health)
    known = None if health.state is HealthState.UNKNOWN else health.state is HealthState.ON_TRACK
    draft.set(ConditionType.HEALTHY, known, health.state, " ".join(health.evidence[:2]))


def _record(draft: Draft, outcome: Outcome) -> None:
    """Keep what an attempt said at its end; what it left unsaid stays as it was."""
    said = ("metrics", "best_checkpoint", "evaluation", "verdict", "dataset", "resumed_from")
    draft.update(**{name: value for name in said if (value := getattr(outcome, name)) is not None})
    _health(draft, outcome)


def _complete(draft: Draft, outcome: Outcome | None) -> None:
    draft.update(failure=None)
    draft.set(ConditionType.SCHEDULED, True, "Scheduled", "Every pod of the run has a node.")
    draft.set(ConditionType.RUNNING, False, status.COMPLETED, outcome.message if outcome else "")
    progress: ProgressStatus = draft.get("progress") or ProgressStatus()
    steps = max(progress.total_steps, outcome.step or 0) if outcome else progress.total_steps
    done = {"percent": 100.0, "step": steps, "total_steps": steps, "eta_seconds": None}
    draft.update(progress=progress.model_copy(update=done))
    verdict = draft.get("verdict")
    if verdict is not None:
        draft.set(ConditionType.EVALUATED, True, "Evaluated", f"{verdict.state}: {' '.join(verdict.reasons[:3])}")
    elif draft.get("evaluation") is not None:
        draft.set(ConditionType.EVALUATED, True, "Evaluated")
    else:
        draft.set(ConditionType.EVALUATED, False, "Skipped", "evaluation.enabled is false")


def _try_again(draft: Draft, job: Job, end: ending.Ending, attempt: int) -> bool:
    """Begin the next attempt when its time has come; True when there will be none."""
    failures, preemptions = draft.get("retries") or 0, draft.get("preemptions") or 0
    draft.set(ConditionType.EVALUATED, False, "Pending")
    if end.failure:
        allowed = draft.run.spec.run_policy.max_retries
        if not end.failure.reason.traits.retried or failures >= allowed:
            draft.fail(end.failure)
            return True
        draft.update(failure=end.failure)
        failures, reason = failures + 1, "Retrying"
        words = f"Attempt {attempt} failed ({end.failure.reason}: {end.failure.message})"
    else:
        preemptions, reason = preemptions + 1, "Preempted"
        words = f"Attempt {attempt} was preempted: {end.preempted}"
    wait = draft.after(job.finished_at, retries.delay(failures if end.failure else preemptions))
    draft.set(ConditionType.RUNNING, False, reason, words)
    draft.tell(f"{words.rstrip('.')}; attempt {attempt + 1} starts in {duration(wait)} from the newest checkpoint")
    if wait > 0:
        draft.requeue(wait)
        return False
    draft.update(retries=failures, preemptions=preemptions)
    _start(draft, attempt + 1)
    return False
