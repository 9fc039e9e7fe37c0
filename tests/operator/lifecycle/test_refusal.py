"""What a run says when the API server refuses its children, or when nobody can read it."""

from dporun_api.v1alpha1.status import ConditionType
from dporun_operator.lifecycle import refusal
from dporun_testing.builders import NOW, a_run


def test_a_first_refusal_has_every_condition() -> None:
    status = refusal.refused(a_run(), 'jobs.batch "demo-prepare" is forbidden: exceeded quota', NOW)
    assert [condition.type for condition in status.conditions] == list(ConditionType)
    assert {c.type: c.reason for c in status.conditions}[ConditionType.SCHEDULED] == "Refused"


def test_a_run_that_cannot_be_read_has_every_condition() -> None:
    status = refusal.unreadable("spec.fromTheFuture: extra inputs are not permitted", 1, NOW)
    assert [condition.type for condition in status.conditions] == list(ConditionType)
    assert [c.type for c in status.conditions if c.status == "True"] == [ConditionType.FINISHED]
