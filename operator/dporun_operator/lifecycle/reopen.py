"""Reopening: archiving that has given up begins again when the user asks for it, or names another Secret."""

from dporun_api.v1alpha1.reasons import Reason
from dporun_api.v1alpha1.status import ArchiveState, ArchiveStatus, ConditionType
from dporun_operator.lifecycle.archive import secret_has_changed
from dporun_operator.lifecycle.conditions import INITIAL
from dporun_operator.lifecycle.draft import Draft
from dporun_operator.lifecycle.step import Step


def reopen(draft: Draft) -> Step:
    """Take a finished run up again that is not archived; where nothing else had failed, it can still succeed."""
    archive = draft.status.archive
    if archive is None or archive.state is not ArchiveState.FAILED:
        return Step.DONE
    if not (draft.run.asks_to_archive or secret_has_changed(draft)):
        return Step.DONE
    if draft.status.failure is not None and draft.status.failure.reason is Reason.ARCHIVE_FAILED:
        draft.status.failure = None
        draft.set_condition(ConditionType.SUCCEEDED, *INITIAL[ConditionType.SUCCEEDED])
    draft.set_condition(ConditionType.FINISHED, *INITIAL[ConditionType.FINISHED])
    draft.status.completion_time = None
    draft.status.archive = ArchiveStatus(state=ArchiveState.PENDING, attempts=archive.attempts + 1)
    return Step.DONE
