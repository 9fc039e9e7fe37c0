"""Acceptance: what the schema cannot refuse is refused, and the run to start from awaited, before anything exists."""

from dporun_api.results import Failure
from dporun_api.text import sentence
from dporun_api.v1alpha1.reasons import Reason
from dporun_api.v1alpha1.rules import NOT_FROM_ITSELF
from dporun_api.v1alpha1.status import ArchiveState, ConditionType
from dporun_operator.lifecycle.draft import Draft
from dporun_operator.lifecycle.step import Step


def accept(draft: Draft) -> Step:
    """Check the image, and that the run does not start from itself."""
    run, settings = draft.run, draft.settings
    if draft.is_true(ConditionType.ACCEPTED):
        return Step.DONE
    if run.spec.image and not settings.allows_image(run.spec.image):
        problem = f"spec.image {run.spec.image} is not among the images that the administrator allows"
        hint = f"Leave spec.image out to use {settings.trainer_image}, or ask for it to be allowed."
        return _refuse(draft, problem, hint)
    if not NOT_FROM_ITSELF.holds(run):  # a run that is older than the rule of the schema
        return _refuse(draft, NOT_FROM_ITSELF.message, None)
    source = run.spec.checkpoints.resume_from
    if source is None or source.run is None:
        _accept(draft)
    return Step.DONE


def await_source(draft: Draft) -> Step:
    """Wait for the run to start from, and say what is awaited of it; give up on one that will never have an archive."""
    source = draft.run.spec.checkpoints.resume_from
    if draft.is_true(ConditionType.ACCEPTED) or source is None or source.run is None:
        return Step.DONE
    if draft.observed.source_uri is None:
        return _say_what_is_awaited(draft, source.run)
    _accept(draft)
    return Step.DONE


def _say_what_is_awaited(draft: Draft, name: str) -> Step:
    source = draft.observed.source
    if source is None:
        words = (
            f"Waiting for DPORun {name} to start from: there is none in namespace {draft.run.namespace}. If it was "
            "deleted, start from its archive: checkpoints.resumeFrom.uri"
        )
    elif source.archive is ArchiveState.SKIPPED:
        problem = f"DPORun {name} cannot be started from: {source.message or 'it is not archived'}"
        hint = "Name a run that is archived, or a folder in checkpoints.resumeFrom.uri."
        return _refuse(draft, problem, hint)
    elif source.archive is ArchiveState.FAILED:
        words = f"Waiting for DPORun {name} to be archived, which has failed: {source.message}"
    else:
        doing = "is being deleted" if source.deleting else f"is {source.phase}"
        words = f"Waiting for DPORun {name} to be archived, to start from its best adapter; it {doing}"
    draft.set_condition(ConditionType.ACCEPTED, False, Reason.WAITING_FOR_SOURCE, sentence(words))
    draft.set_message(words)
    return Step.WAITING


def _accept(draft: Draft) -> None:
    draft.set_condition(ConditionType.ACCEPTED, True, Reason.ACCEPTED, "The run is valid.")


def _refuse(draft: Draft, problem: str, hint: str | None) -> Step:
    draft.set_condition(ConditionType.ACCEPTED, False, Reason.INVALID_SPEC, problem)
    draft.fail(Failure(reason=Reason.INVALID_SPEC, message=problem, hint=hint))
    return Step.GAVE_UP
