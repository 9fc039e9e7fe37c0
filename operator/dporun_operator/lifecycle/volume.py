"""A volume that was lost once training had begun: with a checkpoint in the archive, the run goes on with another one.

Then the attempt in the status has no Job yet and the run is not prepared: the claim is made, model and data are fetched
again, and that attempt fetches the checkpoint.
"""

from dporun_api import archive_policy
from dporun_api.results import Failure
from dporun_api.run_config import ResumePolicy
from dporun_api.v1alpha1.reasons import Reason
from dporun_api.v1alpha1.status import ConditionType
from dporun_operator.lifecycle.draft import Draft
from dporun_operator.lifecycle.stop import still_running
from dporun_operator.names import Component
from dporun_operator.objects.prepare_job import prepare_job
from dporun_operator.observed import Job, Pod


def uploaded(draft: Draft) -> str | None:
    """The checkpoint that another volume would get, and where it is; None where there is none."""
    upload, spec = draft.status.checkpoint_upload, draft.run.spec
    if upload is None or upload.checkpoint is None or spec.archive is None:
        return None
    if spec.checkpoints.resume is ResumePolicy.NEVER:
        return None
    return f"{upload.checkpoint} in {archive_policy.location(spec.archive, draft.run.directory)}"


def can_be_replaced(draft: Draft, pods: tuple[Pod, ...]) -> bool:
    """Whether ``pods`` wait for a claim of ours that no longer exists, and the archive has a checkpoint."""
    gone = f'persistentvolumeclaim "{draft.run.claim_name}" not found'
    waiting = any(gone in (pod.unschedulable or "") for pod in pods)
    return waiting and draft.run.spec.storage.claim_name is None and uploaded(draft) is not None


def lost_checkpoint(draft: Draft, failure: Failure | None) -> Failure | None:
    """The failure of a run whose volume is empty although a checkpoint was saved to it, and to nowhere else."""
    best = draft.status.best_checkpoint
    if failure is None or failure.reason is not Reason.NOT_PREPARED or best is None or uploaded(draft):
        return None
    message = f"PersistentVolumeClaim {draft.run.claim_name} is empty, and {best.name}, which was on it, is lost."
    return Failure(reason=Reason.VOLUME_LOST, message=message, hint=Reason.VOLUME_LOST.traits.hint, pod=failure.pod)


def prepare_anew(draft: Draft, attempt: int, why: str) -> None:
    """Have the run prepared again before ``attempt`` begins; ``why`` is a sentence."""
    draft.status.attempt = attempt
    checkpoint = uploaded(draft)
    words = f"{why} Model and data are fetched again; then attempt {attempt} "
    words += f"goes on from {checkpoint}." if checkpoint else "begins with the first step."
    draft.set_condition(ConditionType.PREPARED, False, Reason.VOLUME_REPLACED, words)
    draft.reset_condition(ConditionType.SCHEDULED)
    draft.reset_condition(ConditionType.RUNNING)
    draft.set_message(words)
    left = training_left(draft)
    for job in left:
        draft.delete("Job", job.name)
    if not left:
        draft.create(prepare_job(draft.run, draft.settings, next_number(draft)))


def is_to_be_made(draft: Draft) -> bool:
    """Whether the claim of the results is to be made: for a run that is to be prepared, for the first time or anew.

    Not while something is left that waits for the claim of before, and not for an attempt of which no status was
    written: it has its claim.
    """
    begun = draft.observed.job(Component.TRAIN, draft.status.attempt or 1) is not None
    return not (draft.is_true(ConditionType.PREPARED) or begun or training_left(draft) or pods_left(draft))


def training_left(draft: Draft) -> list[Job]:
    """Jobs of earlier attempts that have not ended: they would train on a volume that is not prepared."""
    attempt = draft.status.attempt or 1
    return [job for job in draft.observed.jobs_of(Component.TRAIN) if job.attempt < attempt and not job.finished]


def pods_left(draft: Draft) -> list[Pod]:
    """Pods of earlier attempts, which outlive their Job for a while: one that waits for a claim would get the new one.

    Those of an attempt that has its Job are not left: ``train`` judges them.
    """
    return still_running(draft, before=draft.status.attempt or 1)


def tries_to_prepare(draft: Draft) -> tuple[Job, ...]:
    """Jobs that prepare the volume of now: their numbers go on with every try at anything."""
    jobs, status = draft.observed.jobs_of(Component.PREPARE), draft.status
    if draft.observed.job(Component.TRAIN, status.attempt or 1) is not None:
        return jobs
    return tuple(job for job in jobs if job.attempt >= next_number(draft))


def next_number(draft: Draft) -> int:
    """Number of the Job that prepares next."""
    return (draft.status.retries or 0) + (draft.status.preemptions or 0) + 1
