"""Archiving: whether a run is to be archived, and one Job after the other until it is."""

from collections.abc import Sequence

from dporun_api import archive_policy
from dporun_api.results import Failure, Outcome
from dporun_api.run_config import ArchiveContent, ArchiveWhen
from dporun_api.text import capitalise, duration, parse_time, sentence, shorten, timestamp
from dporun_api.v1alpha1.reasons import Reason
from dporun_api.v1alpha1.status import ArchiveState, ArchiveStatus, ConditionType, DPORunStatus
from dporun_operator import names
from dporun_operator.lifecycle import messages, retries, waiting
from dporun_operator.lifecycle.conditions import HELD
from dporun_operator.lifecycle.draft import Draft
from dporun_operator.lifecycle.ending import Ending, judge_ending
from dporun_operator.lifecycle.step import Step
from dporun_operator.lifecycle.stop import lost_pod
from dporun_operator.names import Component
from dporun_operator.objects.archive_job import archive_job
from dporun_operator.observed import Job, Pod
from dporun_operator.run import Manifest


def archive(draft: Draft) -> Step:
    """Prune intermediate checkpoints and archive the results, or record why they are not archived."""
    run, before = draft.run, draft.status.archive
    if draft.is_true(ConditionType.ARCHIVED) or (before is not None and before.state is ArchiveState.SKIPPED):
        return Step.DONE
    reason = skip_reason(draft)
    if reason is not None:
        if not draft.failed and run_archive_jobs(draft, patience=0, prune_only=True) is Step.WAITING:
            return Step.WAITING
        _skip(draft, f"not archived: {reason}")
        return Step.DONE
    step = run_archive_jobs(draft, patience=run.spec.archive.retry_for_seconds if run.spec.archive else 0)
    if step is Step.GAVE_UP and not draft.failed:
        given_up = draft.status.archive
        message = (given_up.message if given_up else None) or "The results could not be archived."
        hint = messages.how_to_archive_again(run)
        draft.fail(Failure(reason=Reason.ARCHIVE_FAILED, message=message, hint=hint))
    return Step.WAITING if step is Step.WAITING else Step.DONE


def skip_reason(draft: Draft) -> str | None:
    """Why the run is not to be archived; None when it is, or when only its verdict on the volume can tell."""
    return archive_policy.skip_reason(
        draft.run.spec.archive, started=draft.started, succeeded=draft.trained, passed=None
    )


def run_archive_jobs(draft: Draft, *, patience: float | None, prune_only: bool = False) -> Step:
    """Take the next step towards the archive: start a Job, follow it, or judge how it ended.

    Args:
        draft: gets the Job and the status.
        patience: seconds, from the first Job on, for which a failure is followed by another try; None is without end.
        prune_only: delete intermediate checkpoints, upload nothing.

    """
    before = draft.status.archive or ArchiveStatus(state=ArchiveState.PENDING)
    attempt = max(before.attempts, 1)
    job = draft.observed.job(Component.ARCHIVE, attempt)
    unknown = [job] if job is not None and job.uid != before.job_uid else []
    if _replace(draft, attempt, [*unknown, *_later_jobs(draft, attempt)]):
        return Step.WAITING
    if job is None:
        _start(draft, attempt, prune_only=prune_only)
        return Step.WAITING
    pods = tuple(pod for pod in draft.observed.pods_of(Component.ARCHIVE, attempt) if pod.controller == job.uid)
    if not job.finished:
        return _follow(draft, job, pods, patience=patience, prune_only=prune_only)
    if not retries.is_settled(draft, job, pods):
        return Step.WAITING
    return _judge(draft, job, pods, patience=patience, prune_only=prune_only)


def _later_jobs(draft: Draft, attempt: int) -> list[Job]:
    """Jobs of attempts that the status does not know of, because it was lost."""
    return [job for job in draft.observed.jobs_of(Component.ARCHIVE) if job.attempt > attempt]


def _replace(draft: Draft, attempt: int, jobs: Sequence[Job]) -> bool:
    """Delete ``jobs`` that may be somebody else's, as archiving can be repeated; True while there are any."""
    for job in jobs:
        draft.delete("Job", job.name)
        _report(draft, attempt, "An archive Job that this run does not know as its own is replaced.")
    return bool(jobs)


def remember_job(status: DPORunStatus, created: Manifest) -> DPORunStatus:
    """``status`` with the UID of ``created``, if that is an archive Job: it has no owner that one could know it by."""
    metadata = created["metadata"]
    if status.archive is None or metadata["labels"].get(names.COMPONENT) != Component.ARCHIVE:
        return status
    return status.model_copy(update={"archive": status.archive.model_copy(update={"job_uid": metadata["uid"]})})


def _is_over(draft: Draft, job: Job, patience: float | None) -> bool:
    """Whether archiving has been tried for as long as ``patience``."""
    archive = draft.status.archive
    began = parse_time(archive.start_time if archive else None) or job.created_at
    return patience is not None and draft.seconds_left(began, patience) == 0


def is_verified(draft: Draft) -> bool:
    """Whether the archive has been compared with its manifest since the run was deleted.

    Both times are known to the second; in the same second the comparison may have been the earlier one.
    """
    archive, deleted = draft.status.archive, draft.run.deletion_time
    verified = parse_time(archive.verified_time) if archive else None
    return verified is not None and deleted is not None and verified > deleted


def was_archived(draft: Draft) -> bool:
    """Whether the archive was complete when it was last compared with its manifest, whenever that was."""
    archive = draft.status.archive
    return draft.is_true(ConditionType.ARCHIVED) or (archive is not None and archive.verified_time is not None)


def verify_again(draft: Draft) -> None:
    """Have another Job compare every file with the manifest, and upload again what differs."""
    attempts = draft.status.archive.attempts if draft.status.archive else 0
    if not _replace(draft, attempts, _later_jobs(draft, attempts)):
        _start(draft, attempts + 1, prune_only=False)


def _follow(draft: Draft, job: Job, pods: tuple[Pod, ...], *, patience: float | None, prune_only: bool) -> Step:
    """Say what a Job waits for; start another one, or give up, when that makes no sense any longer."""
    if lost := lost_pod(draft, pods):
        draft.delete("Job", job.name)
        problem = f"Pod {lost.name} was deleted and does not stop; its node does not answer."
        _start(draft, job.attempt + 1, prune_only=prune_only, problem=problem)
        return Step.WAITING
    image_pull_seconds = float("inf") if patience is None else draft.settings.image_pull_seconds
    stuck = waiting.waiting_reason(pods, now=draft.now, image_pull_seconds=image_pull_seconds)
    failure = (stuck.failure or waiting.lost_volume(draft, stuck)) if stuck else None
    if failure and failure.reason is Reason.VOLUME_LOST and _manifest_to_verify(draft):
        draft.delete("Job", job.name)
        _start(draft, job.attempt + 1, prune_only=prune_only, problem=failure.message, with_volume=False)
        return Step.WAITING
    if failure:
        draft.delete("Job", job.name)
        _give_up(draft, job.attempt, failure.message)
        return Step.GAVE_UP
    if stuck and stuck.reason is Reason.IMAGE_PULL:
        draft.requeue(waiting.IMAGE_PULL_LOOK_SECONDS)
    if stuck and stuck.reason is Reason.CONTAINER_CONFIG and secret_has_changed(draft):
        # It may wait for a Secret of another name by now; the next Job has that.
        draft.delete("Job", job.name)
        return Step.WAITING
    waits_for = stuck.message if stuck and stuck.reason is not Reason.PENDING else waiting.pods_refused(draft, job)
    longest = None if patience is None else patience or draft.settings.image_pull_seconds
    if waits_for and _is_over(draft, job, longest):
        draft.delete("Job", job.name)
        _give_up(draft, job.attempt, waits_for)
        return Step.GAVE_UP
    _report(draft, job.attempt, waits_for)
    return Step.WAITING


def _conclude(draft: Draft, outcome: Outcome, job: Job) -> bool:
    """Record what a Job that ended well has archived; False when something is missing that should be there."""
    archive, result = draft.run.spec.archive, outcome.archive
    if result is not None and archive is not None:
        if _lacks_adapter(draft, outcome):
            return False
        uri = archive_policy.location(archive, draft.run.directory)  # a pod does not say where the archive is
        values = result.model_dump(include={"manifest_sha256", "files", "bytes"})
        mended = shorten(capitalise(sentence(outcome.message)), 1024) if result.mended else None
        draft.status.archive = ArchiveStatus(
            state=ArchiveState.SUCCEEDED,
            attempts=job.attempt,
            uri=uri,
            verified_time=timestamp(job.created_at or draft.now),  # the API server's clock, as the deletion has it
            message=mended,
            **values,
        )
        words = f"{result.files} files are in {uri}. {HELD} compared them with the manifest."
        draft.set_condition(ConditionType.ARCHIVED, True, Reason.ARCHIVED, words)
        if mended:
            draft.add_event(Reason.ARCHIVE_MENDED, mended)
        return True
    if archive is not None and archive.when is not ArchiveWhen.FINISHED:
        _skip(draft, outcome.message)
        return True
    return False


def _judge(draft: Draft, job: Job, pods: tuple[Pod, ...], *, patience: float | None, prune_only: bool) -> Step:
    """Judge how a Job ended; start another one, or give up, where it has not archived the run."""
    end = judge_ending(job, pods, draft.run.spec)
    if end.succeeded and end.outcome and (prune_only or _conclude(draft, end.outcome, job)):
        return Step.DONE
    problem = _problem(draft, end)
    if draft.status.archive and end.outcome and not end.preempted:  # it looked, and did not find the archive whole
        draft.status.archive = draft.status.archive.model_copy(update={"verified_time": None})
    final = end.failure is not None and end.failure.reason is Reason.ARCHIVE_IMPOSSIBLE
    if (final and patience is not None) or _is_over(draft, job, patience):
        _give_up(draft, job.attempt, problem)
        return Step.GAVE_UP
    _try_again(draft, job, job.attempt, problem, prune_only=prune_only)
    return Step.WAITING


def _try_again(draft: Draft, job: Job, attempt: int, problem: str, *, prune_only: bool) -> None:
    at_once = draft.run.asks_to_archive or secret_has_changed(draft)
    wait = 0.0 if at_once else draft.seconds_left(job.finished_at, retries.delay(attempt))
    if wait > 0:
        _report(draft, attempt, f"{sentence(problem)} Retrying in {duration(wait)}.", retrying=True)
        draft.requeue(wait)
        return
    for old in draft.observed.jobs_of(Component.ARCHIVE):
        if old.attempt < attempt:
            draft.delete("Job", old.name)
    _start(draft, attempt + 1, prune_only=prune_only, problem=problem)


def secret_has_changed(draft: Draft) -> bool:
    """Whether the user has named another Secret since the last Job was started."""
    before = draft.status.archive.secret_name if draft.status.archive else None
    return before is not None and before != _secret_name(draft)


def _secret_name(draft: Draft) -> str:
    archive = draft.run.spec.archive
    return archive.secret_ref.name if archive and archive.secret_ref else ""


def _manifest_to_verify(draft: Draft) -> str | None:
    """SHA-256 of the manifest of the archive to verify; None for a run that was never archived where it should be."""
    before, target = draft.status.archive, draft.run.spec.archive
    if before is None or target is None or before.uri != archive_policy.location(target, draft.run.directory):
        return None
    return before.manifest_sha256


def _start(
    draft: Draft, attempt: int, *, prune_only: bool, problem: str | None = None, with_volume: bool = True
) -> None:
    expected = None if prune_only else _manifest_to_verify(draft)
    job = archive_job(
        draft.run,
        draft.settings,
        attempt,
        prune_only=prune_only,
        manifest_sha256=expected,
        with_volume=with_volume,
    )
    draft.create(job)
    _report(draft, attempt, problem)
    if draft.status.archive:
        draft.status.archive = draft.status.archive.model_copy(update={"secret_name": _secret_name(draft)})


def _report(draft: Draft, attempt: int, problem: str | None, *, retrying: bool = False) -> None:
    problem = None if problem is None else shorten(problem, 1024)
    before = draft.status.archive or ArchiveStatus(state=ArchiveState.PENDING)
    draft.status.archive = before.model_copy(
        update={
            "state": ArchiveState.RUNNING,
            "start_time": before.start_time or timestamp(draft.now),
            "attempts": attempt,
            "message": problem,
        }
    )
    first = attempt == 1 or before.verified_time is not None
    reason = Reason.ARCHIVE_RETRYING if retrying or not first else Reason.ARCHIVING
    doing = "Comparing the archive with its manifest" if before.manifest_sha256 else "Archiving the results"
    again = "" if first else ", once more"
    draft.set_condition(ConditionType.ARCHIVED, False, reason, sentence(problem or f"{doing}{again}"))
    failed = f"{messages.of_failure(draft.status.failure)} " if draft.failed and not draft.run.deleting else ""
    draft.set_message(failed + (f"Archiving: {problem}" if problem else doing))


def _give_up(draft: Draft, attempt: int, problem: str) -> None:
    before = draft.status.archive
    known = before.model_dump(include={"job_uid", "secret_name"}) if before else {}
    draft.status.archive = ArchiveStatus(
        state=ArchiveState.FAILED, attempts=attempt, message=shorten(problem, 1024), **known
    )
    draft.set_condition(ConditionType.ARCHIVED, False, Reason.ARCHIVE_FAILED, problem)


def _skip(draft: Draft, words: str) -> None:
    before = draft.status.archive
    known = before.model_dump(include={"job_uid", "attempts"}) if before else {}
    draft.status.archive = ArchiveStatus(state=ArchiveState.SKIPPED, message=words, **known)
    draft.set_condition(ConditionType.ARCHIVED, False, Reason.SKIPPED, sentence(capitalise(words)))


def _lacks_adapter(draft: Draft, outcome: Outcome) -> bool:
    """Whether the run has saved an adapter, its archive should have it, and does not: its volume may be another one."""
    archive, result = draft.run.spec.archive, outcome.archive
    saved = draft.trained or draft.status.best_checkpoint is not None
    wanted = archive is not None and ArchiveContent.BEST in archive.include
    return saved and wanted and result is not None and result.adapter is False


def _problem(draft: Draft, end: Ending) -> str:
    if end.failure:
        words = f"{sentence(end.failure.message)} {end.failure.hint or ''}".strip()
        return shorten(words, 1024)
    if end.outcome and _lacks_adapter(draft, end.outcome):
        return "The archive has no adapter, although training saved one: the volume does not hold the run's results"
    return end.preempted or "The archive Job ended without saying what it archived"
