"""What a run says when the API server refuses its children, or when nobody can read it."""

from dporun_api.text import timestamp
from dporun_api.v1alpha1.status import ConditionType
from dporun_operator.lifecycle import refusal
from dporun_operator.lifecycle.decide import decide
from dporun_operator.observed import Observed
from dporun_testing.builders import NOW, SETTINGS, a_run


def test_a_first_refusal_has_every_condition() -> None:
    status = refusal.refused(a_run(), 'jobs.batch "demo-prepare" is forbidden: exceeded quota', NOW)
    assert [condition.type for condition in status.conditions] == list(ConditionType)
    assert {c.type: c.reason for c in status.conditions}[ConditionType.SCHEDULED] == "Refused"


def test_a_refused_archive_job_leaves_the_nodes_alone() -> None:
    """Nothing sets Scheduled once training is done: a run that has Succeeded would say for ever that it is refused."""
    reached = {"status": "True", "lastTransitionTime": timestamp(NOW), "observedGeneration": 1}
    archive = {"state": "Running", "attempts": 2, "startTime": timestamp(NOW)}
    before = {
        "attempt": 1,
        "trainingCompletionTime": timestamp(NOW),
        "archive": archive,
        "conditions": [{"type": kind, "reason": kind, **reached} for kind in ("Accepted", "Prepared", "Scheduled")],
    }
    spec = {"archive": {"uri": "s3://bucket/runs"}}
    status = refusal.refused(a_run(spec, status=before), "exceeded quota", NOW)
    told = status.model_dump(mode="json", by_alias=True, exclude_none=True)
    assert {c.type: c.reason for c in status.conditions}[ConditionType.ARCHIVED] == "Refused"
    plan = decide(a_run(spec, status=told), Observed(), SETTINGS, NOW)
    assert [made["metadata"]["name"] for made in plan.create] == ["demo-archive-2"]
    reasons = {c.type: c.reason for c in plan.status.conditions}
    assert reasons[ConditionType.SCHEDULED] == "Scheduled"
    assert reasons[ConditionType.ARCHIVED] == "ArchiveRetrying"


def test_a_run_that_cannot_be_read_has_every_condition() -> None:
    status = refusal.unreadable("It cannot be read.", 1, NOW)
    assert [condition.type for condition in status.conditions] == list(ConditionType)
    assert {c.type: c.reason for c in status.conditions}[ConditionType.ACCEPTED] == "InvalidSpec"


def test_a_run_that_could_not_be_read_begins_once_it_can_be() -> None:
    before = refusal.unreadable("It cannot be read.", 1, NOW).model_dump(mode="json", by_alias=True, exclude_none=True)
    plan = decide(a_run(status=before), Observed(), SETTINGS, NOW)
    assert [job["metadata"]["name"] for job in plan.create] == ["demo-prepare"]
    assert plan.status.phase == "Preparing"
