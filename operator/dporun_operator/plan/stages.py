"""The life of a run that is not being deleted: accept → (suspend) → prepare → train → archive → finish.

Each stage is a function that adds to the draft and says whether it is done, so that the next one may begin. What a
stage must remember is in the run's conditions, which the next reconciliation reads: a stage that is done stays done.
"""

from collections.abc import Callable
from datetime import UTC, datetime

from dporun_operator.api.v1alpha1.status import ConditionType, ProgressStatus
from dporun_operator.names import Component
from dporun_operator.plan import (
    archiving,
    ending,
    messages,
    prepare_job,
    retries,
    run_config,
    status,
    storage,
    training_job,
    waiting,
)
from dporun_operator.plan.draft import Draft
from dporun_operator.plan.observed import Job, Pod
from dporun_operator.plan.text import duration, timestamp
from dporun_trainer.contract.results import Failure, FailureReason, HealthState, Outcome, Progress, Stage

HEARTBEAT_SECONDS = 60
"""A heartbeat that brings nothing new is written to the status no more often than this."""

SETTLED_ONCE_SET = (
    # condition, reason that it has before anything is known
    (ConditionType.ACCEPTED, "Pending"),
    (ConditionType.PREPARED, "Pending"),
    (ConditionType.SCHEDULED, "Pending"),
    (ConditionType.RUNNING, "Pending"),
    (ConditionType.TENSORBOARD_READY, "Pending"),
    (ConditionType.EVALUATED, "Pending"),
    (ConditionType.ARCHIVED, "Pending"),
    (ConditionType.STALLED, "NotNeeded"),
    (ConditionType.SUSPENDED, "NotNeeded"),
    (ConditionType.FINISHED, "InProgress"),
)


def begin(draft: Draft) -> bool:
    """Give every condition a value, so that all of them can be waited for."""
    for kind, reason in SETTLED_ONCE_SET:
        if draft.condition(kind) is None:
            draft.set(kind, False, reason)
    for kind in (ConditionType.HEALTHY, ConditionType.SUCCEEDED):
        if draft.condition(kind) is None:
            draft.set(kind, None, "Unknown")
    if draft.get("start_time") is None and (born := [p.created_at for p in draft.observed.pods if p.created_at]):
        draft.update(start_time=timestamp(min(born)))
    return True


def accept(draft: Draft) -> bool:
    """Refuse what the schema of the API cannot refuse."""
    run, settings = draft.run, draft.settings
    if draft.holds(ConditionType.ACCEPTED) or failed(draft):
        return True
    if run.spec.image and not settings.allows_image(run.spec.image):
        problem = f"spec.image {run.spec.image} is not among the images that the administrator allows"
        hint = f"Leave spec.image out to use {settings.trainer_image}, or ask for it to be allowed."
        draft.set(ConditionType.ACCEPTED, False, FailureReason.INVALID_SPEC, problem)
        draft.fail(Failure(reason=FailureReason.INVALID_SPEC, message=problem, hint=hint))
        return True
    source = run.spec.checkpoints.resume_from
    if source and source.run and draft.observed.source_uri is None:
        words = f"Waiting for DPORun {source.run} in this namespace to be archived, to start from its best adapter"
        draft.set(ConditionType.ACCEPTED, False, "WaitingForSource", words)
        draft.tell(words)
        draft.requeue(30)
        return False
    draft.set(ConditionType.ACCEPTED, True, "Accepted", "The run is valid.")
    return True


def furnish(draft: Draft) -> bool:
    """Have what every pod of the run needs."""
    if not failed(draft):
        if claim := storage.results_claim(draft.run):
            draft.apply(claim)
        draft.apply(*run_config.config_maps(draft.run, draft.settings, source_uri=draft.observed.source_uri))
        draft.apply(training_job.training_service(draft.run))
    return True


def suspend(draft: Draft) -> bool:
    """Stop what runs, if asked to; the attempt goes on from its checkpoint when no longer asked to."""
    if not draft.run.spec.suspend:
        if draft.holds(ConditionType.SUSPENDED):
            draft.set(ConditionType.SUSPENDED, False, "Resumed", "The run goes on.")
            draft.set(ConditionType.RUNNING, False, "Pending")
            draft.set(ConditionType.SCHEDULED, False, "Pending")
        return True
    if trained(draft) or failed(draft):
        return True
    work = (Component.PREPARE, Component.TRAIN)
    jobs = [job for component in work for job in draft.observed.jobs_of(component)]
    if any(job.component == Component.TRAIN and job.succeeded for job in jobs):
        return True
    active = [job for job in jobs if not job.finished]
    for job in active:
        draft.delete("Job", job.name)
    if active or any(not pod.ended for component in work for pod in draft.observed.pods_of(component)):
        draft.set(ConditionType.SUSPENDED, False, "Suspending", "Saving a checkpoint and stopping.")
        draft.tell("Suspending: the pods save a checkpoint and stop")
        return False
    draft.set(ConditionType.SUSPENDED, True, "Suspended", "The run holds no node.")
    draft.set(ConditionType.RUNNING, False, "Suspended")
    draft.set(ConditionType.SCHEDULED, False, "Suspended")
    draft.tell(messages.suspended(draft.run))
    return False


def prepare(draft: Draft) -> bool:
    """Fetch and check model and data."""
    if failed(draft) or draft.holds(ConditionType.PREPARED):
        return True
    job = draft.observed.job(Component.PREPARE)
    draft.set(ConditionType.PREPARED, False, status.PREPARING, "Model and data are fetched and checked.")
    draft.tell("Fetching and checking model and data")
    if job is None:
        draft.create(prepare_job.prepare_job(draft.run, draft.settings))
        return False
    pods = tuple(sorted(draft.observed.pods_of(Component.PREPARE), key=_born))[-1:]
    if not job.finished:
        _explain_wait(draft, job, pods)
        return failed(draft)
    if not retries.settled(draft, job, pods):
        return False
    end = ending.of(job, pods, draft.run.spec)
    if end.outcome and end.outcome.dataset:
        draft.update(dataset=end.outcome.dataset)
    if end.succeeded:
        draft.set(ConditionType.PREPARED, True, "Prepared", end.outcome.message if end.outcome else "")
        return True
    failure = end.failure or Failure(reason=FailureReason.NODE_LOST, message=f"Prepare ended early: {end.preempted}.")
    draft.set(ConditionType.PREPARED, False, failure.reason, failure.message)
    draft.fail(failure)
    return True


def train(draft: Draft) -> bool:
    """Train, evaluate and judge: one Job per attempt, until one is done or no other makes sense."""
    if failed(draft) or trained(draft):
        return True
    attempt = draft.get("attempt") or 1
    job = draft.observed.job(Component.TRAIN, attempt)
    if job is None:
        _start(draft, attempt)
        return False
    pods = draft.observed.pods_of(Component.TRAIN, attempt)
    if not job.finished:
        _follow(draft, job, pods)
        return failed(draft)
    if not retries.settled(draft, job, pods):
        return False
    end = ending.of(job, pods, draft.run.spec)
    if end.outcome:
        _record(draft, end.outcome)
    if end.succeeded:
        _complete(draft, end.outcome)
        return True
    return _try_again(draft, job, end, attempt)


def archive(draft: Draft) -> bool:
    """Prune intermediate checkpoints and archive the results."""
    run = draft.run
    if draft.holds(ConditionType.ARCHIVED) or draft.because(ConditionType.ARCHIVED) == archiving.SKIPPED:
        return True
    if failed(draft) and not archiving.wanted(draft):
        archiving.skip(draft, archiving.why_not(draft))
        return True
    if run.spec.archive is None or not archiving.wanted(draft):
        if archiving.pursue(draft, tries=1, prune_only=True) is None:
            return False
        archiving.skip(draft, archiving.why_not(draft))
        return True
    archived = archiving.pursue(draft, tries=run.spec.run_policy.max_retries + 1)
    if archived is None:
        return False
    if not archived and not failed(draft):
        message = draft.get("archive").message or "The results could not be archived."
        hint = ending.hint(FailureReason.ARCHIVE_FAILED, run.spec)
        draft.fail(Failure(reason=FailureReason.ARCHIVE_FAILED, message=message, hint=hint))
    return True


def finish(draft: Draft) -> bool:
    """Close the run for good."""
    draft.update(completion_time=timestamp(draft.now))
    if failed(draft):
        if not trained(draft):
            draft.set(ConditionType.RUNNING, False, "Failed")
        draft.set(ConditionType.FINISHED, True, "Failed", messages.failed(draft.get("failure")))
        draft.tell(messages.failed(draft.get("failure")))
    else:
        words = messages.succeeded(draft)
        draft.set(ConditionType.SUCCEEDED, True, "Succeeded", words)
        draft.set(ConditionType.FINISHED, True, "Succeeded", words)
        draft.tell(words)
    return True


STAGES: tuple[Callable[[Draft], bool], ...] = (
    begin, accept, furnish, suspend, prepare, train, archive, finish,
)  # fmt: skip


def failed(draft: Draft) -> bool:
    """Whether the run has failed for good."""
    condition = draft.condition(ConditionType.SUCCEEDED)
    return condition is not None and condition.status == "False"


def trained(draft: Draft) -> bool:
    """Whether training, evaluation included, is done."""
    return draft.because(ConditionType.RUNNING) == status.COMPLETED


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
    if not pods or _explain_wait(draft, job, pods):
        return
    _scheduled(draft, job, pods)
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
        if end.failure.reason not in ending.RETRIABLE or failures >= allowed:
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


def _explain_wait(draft: Draft, job: Job, pods: tuple[Pod, ...]) -> bool:
    """Say what ``pods`` wait for; False when they do not wait."""
    stuck = waiting.of(pods, draft.run.spec, now=draft.now, image_pull_seconds=draft.settings.image_pull_seconds)
    if stuck is None:
        return False
    if stuck.failure:
        draft.delete("Job", job.name)
        draft.fail(stuck.failure)
    elif stuck.reason == "Unschedulable":
        draft.set(ConditionType.SCHEDULED, False, "Unschedulable", stuck.message)
        draft.tell(stuck.message)
    else:
        _scheduled(draft, job, pods)
        draft.set(
            ConditionType.RUNNING, False, "Pending" if stuck.reason == "Starting" else stuck.reason, stuck.message
        )
        draft.tell(stuck.message)
        if stuck.reason == "ImagePull":
            draft.requeue(60)
    return True


def _scheduled(draft: Draft, job: Job, pods: tuple[Pod, ...]) -> None:
    if job.component == Component.TRAIN and all(pod.scheduled for pod in pods):
        draft.set(ConditionType.SCHEDULED, True, "Scheduled", "Every pod of the run has a node.")
    else:
        draft.set(ConditionType.SCHEDULED, False, "Pending")


def _born(pod: Pod) -> datetime:
    return pod.created_at or datetime.min.replace(tzinfo=UTC)
