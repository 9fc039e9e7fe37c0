"""The end of a run that is being deleted: stop, archive what is not archived, clean up, release.

An error anywhere keeps the run: only the last step lets go of it.
"""

from dporun_api.text import sentence
from dporun_api.v1alpha1.reasons import Reason
from dporun_api.v1alpha1.spec import DeletionPolicy
from dporun_api.v1alpha1.status import ArchiveState, ConditionType
from dporun_operator import names
from dporun_operator.lifecycle import messages
from dporun_operator.lifecycle.archive import (
    is_verified,
    run_archive_jobs,
    skip_reason,
    verify_again,
    was_archived,
)
from dporun_operator.lifecycle.draft import Draft
from dporun_operator.lifecycle.plan import Retain
from dporun_operator.lifecycle.provide import provide_results_and_config
from dporun_operator.lifecycle.step import Step
from dporun_operator.lifecycle.stop import is_awaited
from dporun_operator.names import Component


def delete(draft: Draft) -> Step:
    """Take the next step towards the release of the run."""
    stopped = _stop(draft)  # also where nothing is waited for: an orphaned Job would go on without its run
    if not draft.run.force_release and (stopped is Step.WAITING or _archive(draft) is Step.WAITING):
        return Step.WAITING
    kept = _clean_up(draft)
    archive = draft.status.archive
    mended = archive.message if archive and archive.state is ArchiveState.SUCCEEDED else None
    if draft.run.spec.deletion_policy is DeletionPolicy.DELETE:
        kept = kept or "its results go with it, because deletionPolicy is Delete"
    draft.set_message(messages.deleting(draft.run, ". ".join(filter(None, (kept or "everything is safe", mended)))))
    draft.release = True
    return Step.DONE


def _stop(draft: Draft) -> Step:
    """Stop everything that writes to the volume, and wait until its pods no longer exist or are overdue."""
    run, observed = draft.run, draft.observed
    work = (Component.PREPARE, Component.TRAIN)
    jobs = [job for component in work for job in observed.jobs_of(component)]
    pods = [pod for component in (*work, Component.TENSORBOARD) for pod in observed.pods_of(component)]
    for job in jobs:
        draft.delete("Job", job.name)
    draft.delete("Deployment", names.tensorboard(run.name))
    awaited = [pod for pod in pods if is_awaited(draft, pod)]
    if not jobs and not awaited:
        return Step.DONE
    words = messages.deleting(run, messages.stopping(jobs, awaited))
    if not draft.trained:
        draft.set_condition(ConditionType.RUNNING, False, Reason.DELETING, sentence(words))
    draft.set_message(words)
    return Step.WAITING


def _archive(draft: Draft) -> Step:
    """Archive what is to be archived, and verify what was archived before, for as long as that takes."""
    if draft.run.spec.deletion_policy is not DeletionPolicy.ARCHIVE or skip_reason(draft):
        return Step.DONE
    if is_verified(draft):
        return Step.DONE
    if draft.observed.namespace_terminates:
        return _archive_what_still_can_be(draft)
    provide_results_and_config(draft)
    if draft.is_true(ConditionType.ARCHIVED):  # months may have passed since
        verify_again(draft)
        step = Step.WAITING
    else:
        step = run_archive_jobs(draft, patience=None)
    archive, way_out = draft.status.archive, ""
    if step is Step.WAITING and archive and archive.message:
        to_be_verified = archive.manifest_sha256 is not None
        way_out = (messages.how_to_force_release if to_be_verified else messages.how_to_force_delete)(draft.run)
    if step is Step.WAITING:
        draft.set_message(f"{messages.deleting(draft.run, draft.status.message or '')} {way_out}".strip())
    return step


def _archive_what_still_can_be(draft: Draft) -> Step:
    """Wait for a Job that is there already: no other can be made in a namespace that is being deleted.

    Nor can an archive be verified again; the word of the last time has to do.
    """
    if was_archived(draft) or not draft.observed.jobs_of(Component.ARCHIVE):
        return Step.DONE
    return Step.WAITING if run_archive_jobs(draft, patience=0) is Step.WAITING else Step.DONE


def _clean_up(draft: Draft) -> str | None:
    """Delete what has no owner; the rest follows the run. Says where the results are, if they stay on their volume."""
    run = draft.run
    for job in draft.observed.jobs_of(Component.ARCHIVE):
        draft.delete("Job", job.name)
    draft.delete("ConfigMap", names.config_map(run.name))
    reason = _why_kept(draft)
    if reason and draft.observed.namespace_terminates and not run.force_release:
        draft.unprotect(run.claim_name, even_if_deleted=True)
        return _retain_volume(draft, reason)
    if run.spec.storage.claim_name:
        return None
    draft.unprotect(run.claim_name, even_if_deleted=reason is None or run.force_release, kept=reason)
    if reason is None:
        draft.delete("PersistentVolumeClaim", run.claim_name)
        return None
    words = f"PersistentVolumeClaim {run.claim_name} is not deleted: {reason}"
    draft.add_event(Reason.VOLUME_KEPT, f"{words}.")
    return words


def _retain_volume(draft: Draft, reason: str) -> str:
    """Keep the PersistentVolume of a claim that goes with its namespace, and write on it whose it is."""
    run, volume, best = draft.run, draft.observed.volume, draft.status.best_checkpoint
    if volume is None:
        return (
            f"PersistentVolumeClaim {run.claim_name} does not exist any more; if its volume was kept, "
            f"that is the PersistentVolume with the annotation {names.RUN_UID}: {run.uid}"
        )
    annotations = {
        names.RUN_NAME: f"{run.namespace}/{run.name}",
        names.RUN_UID: run.uid,
        names.FOLDER: run.directory,
        **({names.BEST_CHECKPOINT: best.name} if best else {}),
    }
    words = (
        f"The results of DPORun {run.namespace}/{run.name} stay on PersistentVolume {volume} in {run.directory}: "
        f"its namespace is deleted, and {reason}. docs/runbooks/deleted-namespace.md says how to get them back."
    )
    draft.retain(Retain(volume, annotations, words))
    return words


def _why_kept(draft: Draft) -> str | None:
    """Why the run's volume outlives it; None when it may be deleted.

    The last copy of a trained adapter is deleted only when someone asked for that.
    """
    spec, policy = draft.run.spec, draft.run.spec.deletion_policy
    archived = spec.archive is not None and was_archived(draft)
    rules = (
        # the first row that holds decides
        (draft.run.force_release, f"{names.FORCE_RELEASE} lets the run go, whatever becomes of its results"),
        (policy is DeletionPolicy.RETAIN, "deletionPolicy is Retain"),
        (policy is DeletionPolicy.DELETE, None),
        (spec.storage.when_deleted == "Retain", "storage.whenDeleted is Retain"),
        (archived or not draft.started, None),
        (spec.archive is None, "no archive is set, so it holds the only copy of the results"),
        (True, "the run was not archived, so it holds the only copy of the results"),
    )
    return next(reason for holds, reason in rules if holds)
