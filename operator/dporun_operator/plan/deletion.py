"""The end of a run that is being deleted: stop, archive what is not archived, clean up, release.

An error anywhere keeps the run: only the last step lets go of it.
"""

from dporun_api.v1alpha1.spec import DeletionPolicy
from dporun_api.v1alpha1.status import ConditionType
from dporun_operator import names
from dporun_operator.names import Component
from dporun_operator.plan import archiving, messages, run_config, storage
from dporun_operator.plan.draft import Draft


def delete(draft: Draft) -> None:
    """Take the next step towards the release of the run."""
    if not _quiet(draft):
        return
    if _to_archive(draft):
        if claim := storage.results_claim(draft.run):
            draft.apply(claim)
        draft.apply(*run_config.config_maps(draft.run, draft.settings, source_uri=draft.observed.source_uri))
        if archiving.pursue(draft, tries=None) is None:
            if draft.get("archive").message:
                draft.tell(f"{draft.get('message')} {messages.let_go(draft.run)}")
            return
    _clean_up(draft)
    draft.tell(messages.deleting("everything is safe"))
    draft.release = True


def _quiet(draft: Draft) -> bool:
    """Stop everything that writes to the volume, and wait until its pods are gone."""
    run, observed = draft.run, draft.observed
    work = (Component.PREPARE, Component.TRAIN)
    jobs = [job for component in work for job in observed.jobs_of(component)]
    pods = [pod for component in (*work, Component.TENSORBOARD) for pod in observed.pods_of(component)]
    for job in jobs:
        draft.delete("Job", job.name)
    draft.delete("Deployment", names.tensorboard(run.name))
    if not jobs and not pods:
        return True
    if not draft.trained:
        draft.set(ConditionType.RUNNING, False, "Deleting", "The pods save a checkpoint and stop.")
    draft.tell(messages.deleting("the pods save a checkpoint and stop"))
    return False


def _to_archive(draft: Draft) -> bool:
    return (
        draft.run.spec.deletion_policy is DeletionPolicy.ARCHIVE
        and not draft.holds(ConditionType.ARCHIVED)
        and archiving.wanted(draft)
    )


def _clean_up(draft: Draft) -> None:
    """Delete what has no owner; the rest follows the run."""
    run = draft.run
    for job in draft.observed.jobs_of(Component.ARCHIVE):
        draft.delete("Job", job.name)
    draft.delete("ConfigMap", names.config_map(run.name))
    if run.spec.storage.claim_name:
        return
    if reason := _why_kept(draft):
        draft.event("VolumeKept", f"PersistentVolumeClaim {run.claim_name} stays: {reason}.", warning=True)
    else:
        draft.delete("PersistentVolumeClaim", run.claim_name)


def _why_kept(draft: Draft) -> str | None:
    """Why the run's volume outlives it; None when it may go.

    The last copy of a trained adapter is deleted only when someone asked for that.
    """
    spec = draft.run.spec
    if spec.deletion_policy is DeletionPolicy.DELETE or not draft.get("attempt"):
        return None
    if spec.deletion_policy is DeletionPolicy.RETAIN:
        return "deletionPolicy is Retain"
    if spec.storage.when_deleted == "Retain":
        return "storage.whenDeleted is Retain"
    if spec.archive is None:
        return "no archive is set, so it holds the only copy of the results"
    if not draft.trained and not draft.holds(ConditionType.ARCHIVED):
        return f"archive.when is {spec.archive.when}, so it holds the only copy of the checkpoints"
    return None
