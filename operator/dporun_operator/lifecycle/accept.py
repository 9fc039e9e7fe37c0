"""Acceptance: what the schema of the API cannot refuse is refused before anything else exists."""

from dporun_api.results import Failure
from dporun_api.v1alpha1.reasons import Reason
from dporun_api.v1alpha1.status import ConditionType
from dporun_operator.lifecycle.draft import Draft
from dporun_operator.lifecycle.step import Step


def accept(draft: Draft) -> Step:
    """Check the image, and wait for the run to start from."""
    run, settings = draft.run, draft.settings
    if draft.is_true(ConditionType.ACCEPTED):
        return Step.DONE
    if run.spec.image and not settings.allows_image(run.spec.image):
        problem = f"spec.image {run.spec.image} is not among the images that the administrator allows"
        hint = f"Leave spec.image out to use {settings.trainer_image}, or ask for it to be allowed."
        draft.set_condition(ConditionType.ACCEPTED, False, Reason.INVALID_SPEC, problem)
        draft.fail(Failure(reason=Reason.INVALID_SPEC, message=problem, hint=hint))
        return Step.GAVE_UP
    source = run.spec.checkpoints.resume_from
    if source and source.run and draft.observed.source_uri is None:
        words = f"Waiting for DPORun {source.run} in this namespace to be archived, to start from its best adapter"
        draft.set_condition(ConditionType.ACCEPTED, False, Reason.WAITING_FOR_SOURCE, words)
        draft.set_message(words)
        draft.requeue(30)
        return Step.WAITING
    draft.set_condition(ConditionType.ACCEPTED, True, Reason.ACCEPTED, "The run is valid.")
    return Step.DONE
