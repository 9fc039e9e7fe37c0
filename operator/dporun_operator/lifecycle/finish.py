"""The end: Succeeded or Failed, for good."""

from dporun_api.text import shorten, timestamp
from dporun_api.v1alpha1.reasons import Reason
from dporun_api.v1alpha1.status import ConditionType
from dporun_operator.lifecycle import messages
from dporun_operator.lifecycle.draft import Draft
from dporun_operator.lifecycle.step import Step


def finish(draft: Draft) -> Step:
    """Close the run: from here on it is Finished, and no step of WORK or CLOSING is taken again."""
    draft.status.completion_time = timestamp(draft.now)
    if draft.failed:
        words = shorten(messages.failed(draft.status.failure, draft.status.retries or 0), 1024)
        if not draft.trained:
            draft.set_condition(ConditionType.RUNNING, False, Reason.FAILED, words)
        draft.set_condition(ConditionType.FINISHED, True, Reason.FAILED, words)
    else:
        words = shorten(messages.succeeded(draft), 1024)
        draft.set_condition(ConditionType.SUCCEEDED, True, Reason.SUCCEEDED, words)
        draft.set_condition(ConditionType.FINISHED, True, Reason.SUCCEEDED, words)
    draft.set_message(words)
    return Step.DONE


def restate(draft: Draft) -> None:
    """Say again how a finished run ended, should another operator or a refusal have put other words in their place."""
    words = draft.condition(ConditionType.FINISHED).message
    if words:
        draft.set_message(words)
