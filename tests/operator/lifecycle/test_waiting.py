"""When to look again at a Job that lacks pods: nothing wakes the run when they are refused."""

from typing import Any

import pytest

from dporun_operator.cache import slim
from dporun_operator.lifecycle.decide import decide
from dporun_operator.observed import Observed
from dporun_testing.builders import NOW, SETTINGS, a_run, job, pod


def true(kind: str) -> dict[str, Any]:
    since = "2026-01-05T09:00:00Z"
    return {"type": kind, "status": "True", "reason": kind, "lastTransitionTime": since, "observedGeneration": 1}


TRAINED = {
    "conditions": [true("Accepted"), true("Prepared")],
    "attempt": 1,
    "trainingCompletionTime": "2026-01-05T09:59:00Z",
    "archive": {"state": "Running", "attempts": 1, "jobUid": "job-archive-1"},
}
ACCEPTED = {"conditions": [true("Accepted")]}
SPEC = {"archive": {"uri": "s3://bucket/runs"}, "tensorboard": {"enabled": False}}


def looks_again(children: list[dict[str, Any]], status: dict[str, Any]) -> float | None:
    run = a_run(SPEC, status=status)
    return decide(run, Observed.of(map(slim, children), run), SETTINGS, NOW).requeue_seconds


@pytest.mark.parametrize(("component", "status"), [("prepare", ACCEPTED), ("archive", TRAINED)])
@pytest.mark.parametrize(("age", "seconds"), [(1, 5), (6, 60)])
def test_a_job_without_pods_is_looked_at_again(component: str, status: Any, age: float, seconds: float) -> None:
    """A moment after it was made, when its pods should have come; then once a minute."""
    assert looks_again([job(component, age=age)], status) == seconds
    assert looks_again([job(component, age=age), pod(component, state="waiting", age=age)], status) is None
