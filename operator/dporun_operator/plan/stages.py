"""The life of a run that is not being deleted: accept → (suspend) → prepare → train → archive → finish.

Each stage is a function that adds to the draft and says whether it is done, so that the next one may begin. What a
stage must remember is in the run's conditions, which the next reconciliation reads: a stage that is done stays done.
"""

from collections.abc import Callable
from datetime import UTC, datetime

from dporun_api.results import Failure
from dporun_api.text import timestamp
from dporun_api.v1alpha1.reasons import Reason
from dporun_api.v1alpha1.status import ConditionType
from dporun_operator.names import Component
from dporun_operator.plan import (
    archiving,
    attempts,
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
from dporun_operator.plan.observed import Pod

INITIAL_REASONS = (
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
    for kind, reason in INITIAL_REASONS:
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
    if draft.holds(ConditionType.ACCEPTED) or draft.failed:
        return True
    if run.spec.image and not settings.allows_image(run.spec.image):
        problem = f"spec.image {run.spec.image} is not among the images that the administrator allows"
        hint = f"Leave spec.image out to use {settings.trainer_image}, or ask for it to be allowed."
        draft.set(ConditionType.ACCEPTED, False, Reason.INVALID_SPEC, problem)
        draft.fail(Failure(reason=Reason.INVALID_SPEC, message=problem, hint=hint))
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
    if not draft.failed:
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
            draft.set(ConditionType.EVALUATED, False, "Pending")
        return True
    if draft.trained or draft.failed:
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
    if draft.failed or draft.holds(ConditionType.PREPARED):
        return True
    job = draft.observed.job(Component.PREPARE)
    draft.set(ConditionType.PREPARED, False, status.PREPARING, "Model and data are fetched and checked.")
    draft.tell("Fetching and checking model and data")
    if job is None:
        draft.create(prepare_job.prepare_job(draft.run, draft.settings))
        return False
    pods = tuple(sorted(draft.observed.pods_of(Component.PREPARE), key=_born))[-1:]
    if not job.finished:
        if not waiting.explain(draft, job, pods):
            waiting.mark_scheduled(draft, job, pods)
            draft.set(ConditionType.RUNNING, False, "Pending")
        given_up: Failure | None = draft.get("failure")
        if given_up:
            draft.set(ConditionType.PREPARED, False, given_up.reason, given_up.message)
        return given_up is not None
    if not retries.settled(draft, job, pods):
        return False
    end = ending.of(job, pods, draft.run.spec)
    if end.outcome and end.outcome.dataset:
        draft.update(dataset=end.outcome.dataset)
    if end.succeeded:
        draft.set(ConditionType.PREPARED, True, "Prepared", end.outcome.message if end.outcome else "")
        return True
    failure = end.failure or Failure(reason=Reason.NODE_LOST, message=f"Prepare ended early: {end.preempted}.")
    draft.set(ConditionType.PREPARED, False, failure.reason, failure.message)
    draft.fail(failure)
    return True


def archive(draft: Draft) -> bool:
    """Prune intermediate checkpoints and archive the results."""
    run = draft.run
    if draft.holds(ConditionType.ARCHIVED) or draft.because(ConditionType.ARCHIVED) == archiving.SKIPPED:
        return True
    if draft.failed and not archiving.wanted(draft):
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
    if not archived and not draft.failed:
        message = draft.get("archive").message or "The results could not be archived."
        hint = ending.hint(Reason.ARCHIVE_FAILED, run.spec)
        draft.fail(Failure(reason=Reason.ARCHIVE_FAILED, message=message, hint=hint))
    return True


def finish(draft: Draft) -> bool:
    """Close the run for good."""
    draft.update(completion_time=timestamp(draft.now))
    if draft.failed:
        if not draft.trained:
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
    begin, accept, furnish, suspend, prepare, attempts.train, archive, finish,
)  # fmt: skip


def _born(pod: Pod) -> datetime:
    return pod.created_at or datetime.min.replace(tzinfo=UTC)
