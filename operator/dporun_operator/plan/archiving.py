"""Archiving: whether a run is to be archived, and one Job after the other until it is."""

from dporun_api.archive_policy import skip_reason
from dporun_api.results import Outcome
from dporun_api.run_config import ArchiveWhen
from dporun_api.text import duration, sentence, shorten
from dporun_api.v1alpha1.reasons import Reason
from dporun_api.v1alpha1.status import ArchiveState, ArchiveStatus, ConditionType
from dporun_operator.names import Component
from dporun_operator.plan import archive_job, ending, retries, status, waiting
from dporun_operator.plan.draft import Draft
from dporun_operator.plan.observed import Job, Pod

SKIPPED = "Skipped"
"""Reason of Archived when nothing is to be archived."""
ARCHIVED = "Archived"


def wanted(draft: Draft) -> bool:
    """Whether the run, as it ended, is to be archived."""
    return why_not(draft) is None


def why_not(draft: Draft) -> str | None:
    """Say why the run is not to be archived; None when it is, or when only its verdict on the volume can tell."""
    return skip_reason(draft.run.spec.archive, started=bool(draft.get("attempt")), succeeded=draft.trained, passed=None)


def skip(draft: Draft, reason: str | None) -> None:
    """Record that nothing is archived."""
    draft.update(archive=ArchiveStatus(state=ArchiveState.SKIPPED, message=reason))
    draft.set(ConditionType.ARCHIVED, False, SKIPPED, reason or "")


def pursue(draft: Draft, *, tries: int | None, prune_only: bool = False) -> bool | None:
    """Take the next step towards the archive.

    Args:
        draft: gets the Job and the status.
        tries: Jobs to start at most; None is without limit.
        prune_only: delete intermediate checkpoints, upload nothing.

    Returns:
        None while under way; True when done; False when given up.

    """
    before: ArchiveStatus = draft.get("archive") or ArchiveStatus(state=ArchiveState.PENDING)
    attempt = max(before.attempts, 1)
    job = draft.observed.job(Component.ARCHIVE, attempt)
    if job is None:
        _start(draft, attempt, prune_only=prune_only)
        return None
    pods = draft.observed.pods_of(Component.ARCHIVE, attempt)
    if not job.finished:
        return _follow(draft, job, pods, tries=tries)
    if not retries.settled(draft, job, pods):
        return None
    end = ending.of(job, pods, draft.run.spec)
    if end.succeeded and end.outcome and (prune_only or _conclude(draft, end.outcome, attempt)):
        return True
    problem = _problem(end)
    if tries is not None and attempt >= tries:
        _give_up(draft, attempt, problem)
        return False
    _try_again(draft, job, attempt, problem, prune_only=prune_only)
    return None


def _follow(draft: Draft, job: Job, pods: tuple[Pod, ...], *, tries: int | None) -> bool | None:
    """Say what a Job waits for; False when that makes no sense any longer."""
    patience = draft.settings.image_pull_seconds if tries is not None else float("inf")
    stuck = waiting.of(pods, draft.run.spec, now=draft.now, image_pull_seconds=patience)
    if stuck and stuck.failure:
        draft.delete("Job", job.name)
        _give_up(draft, job.attempt, stuck.message)
        return False
    if stuck and stuck.reason == "ImagePull":
        draft.requeue(60)
    told = draft.condition(ConditionType.ARCHIVED)
    if stuck and stuck.reason == "ContainerConfig" and told and told.observed_generation != draft.run.generation:
        draft.delete("Job", job.name)  # the Secret it waits for may be another one now; the next Job has that
    _say(draft, job.attempt, stuck.message if stuck and stuck.reason != "Starting" else None)
    return None


def _conclude(draft: Draft, outcome: Outcome, attempt: int) -> bool:
    """Record what a Job that ended well has archived; False when that is nothing, and it should be something."""
    archive = draft.run.spec.archive
    result = outcome.archive
    if result is not None:
        values = result.model_dump(include={"uri", "manifest_sha256", "files", "bytes"})
        draft.update(archive=ArchiveStatus(state=ArchiveState.SUCCEEDED, attempts=attempt, **values))
        draft.set(ConditionType.ARCHIVED, True, ARCHIVED, f"{result.files} files are in {result.uri}.")
        return True
    if archive is not None and archive.when is not ArchiveWhen.FINISHED:
        skip(draft, outcome.message)
        return True
    return False


def _try_again(draft: Draft, job: Job, attempt: int, problem: str, *, prune_only: bool) -> None:
    wait = draft.after(job.finished_at, retries.delay(attempt))
    if wait > 0:
        _say(draft, attempt, f"{sentence(problem)} Trying again in {duration(wait)}.")
        draft.requeue(wait)
        return
    for old in draft.observed.jobs_of(Component.ARCHIVE):
        if old.attempt < attempt:
            draft.delete("Job", old.name)
    _start(draft, attempt + 1, prune_only=prune_only, problem=problem)


def _give_up(draft: Draft, attempt: int, problem: str) -> None:
    draft.update(archive=ArchiveStatus(state=ArchiveState.FAILED, attempts=attempt, message=problem))
    draft.set(ConditionType.ARCHIVED, False, Reason.ARCHIVE_FAILED, problem)


def _start(draft: Draft, attempt: int, *, prune_only: bool, problem: str | None = None) -> None:
    draft.create(archive_job.archive_job(draft.run, draft.settings, attempt, prune_only=prune_only))
    _say(draft, attempt, problem)


def _say(draft: Draft, attempt: int, problem: str | None) -> None:
    problem = None if problem is None else shorten(problem, 1024)
    draft.update(archive=ArchiveStatus(state=ArchiveState.RUNNING, attempts=attempt, message=problem))
    draft.set(ConditionType.ARCHIVED, False, status.ARCHIVING, problem or "Results are pruned, uploaded and verified.")
    draft.tell(f"Archiving: {problem}" if problem else "Archiving the results")


def _problem(end: ending.Ending) -> str:
    if end.failure:
        words = f"{sentence(end.failure.message)} {end.failure.hint or ''}".strip()
        return shorten(words, 1024)
    return end.preempted or "the archive Job ended without saying what it archived"
