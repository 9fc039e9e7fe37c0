"""Why a Job gets no pod, and how often the API server is asked for it."""

from datetime import timedelta
from typing import Any

import pytest

from dporun_operator.errors import ApiError
from dporun_operator.observed import Job
from dporun_operator.pod_refusals import PodRefusals, refusal
from dporun_testing.builders import NOW, UID, job, stamp

QUOTA = "exceeded quota: team-a, requested: pods=1, used: pods=5, limited: pods=5"
JOB = Job.parse(job("prepare"))


class Events:
    """A cluster in which there are only Events."""

    def __init__(self, *events: dict[str, Any]):
        self.events = events
        self.asked: list[str | None] = []

    async def list(self, kind: str, *, namespace: str, field: str) -> list[dict[str, Any]]:
        assert (kind, namespace) == ("Event", "team-a")
        self.asked.append(field)
        return list(self.events)


def event(message: str, *, ago: float) -> dict[str, Any]:
    return {"message": f'Error creating: pods "demo-prepare-x" is forbidden: {message}', "lastTimestamp": told(ago)}


def told(ago: float) -> str:
    return stamp(NOW - timedelta(seconds=ago))


async def test_the_newest_event_tells() -> None:
    cluster: Any = Events(event("old words", ago=90), event(QUOTA, ago=3), {"message": "of no time"})
    assert await PodRefusals(cluster)(UID, "team-a", [JOB], NOW) == {"demo-prepare": QUOTA}
    assert cluster.asked == ["involvedObject.uid=job-prepare-1,reason=FailedCreate"]


async def test_a_refusal_of_before_is_not_told() -> None:
    cluster: Any = Events(event(QUOTA, ago=1200))
    assert await PodRefusals(cluster)(UID, "team-a", [JOB], NOW) == {}


async def test_one_job_is_asked_about_once_a_minute() -> None:
    cluster: Any = Events(event(QUOTA, ago=3))
    ask = PodRefusals(cluster)
    for seconds in range(0, 119, 2):
        assert await ask(UID, "team-a", [JOB], NOW + timedelta(seconds=seconds)) == {"demo-prepare": QUOTA}
    assert len(cluster.asked) == 2


async def test_a_job_that_has_its_pods_costs_nothing() -> None:
    cluster: Any = Events(event(QUOTA, ago=3))
    assert await PodRefusals(cluster)(UID, "team-a", [], NOW) == {}
    assert cluster.asked == []


async def test_an_operator_without_the_right_goes_on() -> None:
    class Forbidden(Events):
        async def list(self, kind: str, *, namespace: str, field: str) -> list[dict[str, Any]]:
            raise ApiError(403, "Forbidden", f"cannot list {kind} in {namespace} by {field}")

    cluster: Any = Forbidden()
    assert await PodRefusals(cluster)(UID, "team-a", [JOB], NOW) == {}


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (f'Error creating: pods "demo-x" is forbidden: {QUOTA}', QUOTA),
        (f'(combined from similar events): Error creating: pods "demo-y" is forbidden: {QUOTA}', QUOTA),
        (
            'Error creating: admission webhook "p" denied the request: no',
            'admission webhook "p" denied the request: no',
        ),
    ],
)
def test_the_words_name_no_pod_that_never_was(message: str, words: str) -> None:
    assert refusal(message) == words
