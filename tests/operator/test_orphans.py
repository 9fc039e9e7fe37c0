"""Claims that have lost their run."""

from typing import Any

import pytest

from dporun_operator.cluster import Cluster
from dporun_operator.events import Events
from dporun_operator.orphans import Orphans
from dporun_testing.builders import NOW, UID


def claim(name: str, run_uid: str = UID, *, kept: bool = True) -> dict[str, Any]:
    metadata = {
        "name": name,
        "namespace": "team-a",
        "uid": f"uid-of-{name}",
        "labels": {"dporun.io/run-uid": run_uid, "dporun.io/run": "demo"},
        "finalizers": ["kubernetes.io/pvc-protection", *(["dporun.io/results"] if kept else [])],
    }
    return {"kind": "PersistentVolumeClaim", "metadata": metadata}


class Claims(Cluster):
    """A cluster that has some claims, and keeps the Events that are posted."""

    def __init__(self, *claims: dict[str, Any]):
        super().__init__(None)
        self.claims = {found["metadata"]["name"]: found for found in claims}
        self.events: list[dict[str, Any]] = []

    async def get(self, kind: str, _namespace: str | None, name: str) -> dict[str, Any] | None:
        assert kind == "PersistentVolumeClaim"
        return self.claims.get(name)

    async def post_event(self, event: dict[str, Any]) -> None:
        self.events.append(event)


async def test_a_claim_without_its_run_is_told_once_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    lost = claim("lost", "99999999-1111")
    cluster = Claims(lost)
    orphans = Orphans(cluster, Events(cluster, lambda: NOW))
    for _ in range(2):
        await orphans.report([lost, claim("mine")], {UID})
        assert orphans.count == 1
    (event,) = cluster.events
    assert (event["type"], event["reason"]) == ("Warning", "ClaimOrphaned")
    assert event["involvedObject"]["name"] == "lost"
    assert event["metadata"]["namespace"] == "team-a"
    assert "DPORun demo (99999999-1111) does not exist any more" in event["message"]
    assert caplog.text.count("team-a/lost: DPORun demo") == 1
    await orphans.report([], {UID})
    assert orphans.count == 0


@pytest.mark.parametrize("now", [(), (claim("gone", kept=False),)], ids=["deleted", "let go of"])
async def test_a_claim_that_was_let_go_meanwhile_is_no_orphan(now: tuple[dict[str, Any], ...]) -> None:
    cluster = Claims(*now)
    orphans = Orphans(cluster, Events(cluster, lambda: NOW))
    await orphans.report([claim("gone")], set())
    assert (orphans.count, cluster.events) == (0, [])


async def test_a_claim_that_outlives_its_run_is_no_orphan() -> None:
    """The operator has taken its finalizer off: from then on the claim is its user's."""
    kept = claim("kept", kept=False)
    cluster = Claims(kept)
    orphans = Orphans(cluster, Events(cluster, lambda: NOW))
    await orphans.report([kept], set())
    assert orphans.count == 0
