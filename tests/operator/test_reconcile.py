"""What the reconciler does with a run that it cannot read."""

from typing import Any

import pytest

from dporun_api.results import Progress
from dporun_operator.cache import WatchCache
from dporun_operator.cluster import Cluster
from dporun_operator.errors import ApiError, InvalidRunError
from dporun_operator.metrics import Metrics
from dporun_operator.reconcile import Reconciler
from dporun_testing.builders import NOW, SETTINGS, UID, job, pod, run_body

FORCE_RELEASE = "dporun.io/force-release"


async def silence(_namespace: str, _pod: str, _address: str | None) -> Progress | None:
    return None


class OneClaim(Cluster):
    """A cluster in which there are only the run and its claim."""

    def __init__(self) -> None:
        super().__init__(None)
        self.patches: dict[str, Any] = {}

    async def _call(self, method: str, path: str, *, body: object = None, **_: object) -> dict[str, Any]:
        if method == "PATCH":
            self.patches[path.rpartition("/")[2]] = body
        labels = {"dporun.io/run-uid": UID}
        finalizers = ["dporun.io/results", "other"]
        name, namespace = path.rpartition("/")[2], "team-a"
        metadata = {"name": name, "namespace": namespace, "uid": UID, "resourceVersion": "7"}
        return {"metadata": {**metadata, "labels": labels, "finalizers": finalizers}}


def removed(version: str, *rest: str) -> list[dict[str, Any]]:
    return [
        {"op": "test", "path": "/metadata/resourceVersion", "value": version},
        {"op": "add", "path": "/metadata/finalizers", "value": list(rest)},
    ]


SUCCEEDED = '{"state": "Succeeded"}'
TRAINED = {"phase": "Training", "attempt": 1}


@pytest.mark.parametrize(
    ("deleting", "annotations", "words"),
    [
        (False, {}, "leaves it to one that can: fromTheFuture"),
        (True, {}, f"kubectl -n team-a annotate dporun demo {FORCE_RELEASE}={UID}"),
        (False, {FORCE_RELEASE: UID}, "leaves it to one that can: fromTheFuture"),
    ],
    ids=["living", "deleted", "not deleted"],
)
async def test_a_trained_run_that_cannot_be_read_only_says_so(
    deleting: bool, annotations: dict[str, str], words: str
) -> None:
    body = run_body({"fromTheFuture": True}, status=TRAINED, deleting=deleting, annotations=annotations)
    cluster = OneClaim()
    reconcile = Reconciler(cluster, WatchCache(), silence, SETTINGS, Metrics(dict, dict))
    with pytest.raises(InvalidRunError, match="fromTheFuture"):
        await reconcile(body)
    message = cluster.patches["status"]["status"].pop("message")
    assert words in message
    assert cluster.patches == {"status": {"metadata": {"resourceVersion": "100"}, "status": {}}}, "nothing else"
    body["status"]["message"] = message
    cluster.patches.clear()
    with pytest.raises(InvalidRunError):
        await reconcile(body)
    assert cluster.patches == {}


@pytest.mark.parametrize("status", [{"bestCheckpoint": {"fromTheFuture": 1}}, {}], ids=["a trace", "a Job"])
async def test_any_trace_of_training_counts_where_nothing_can_be_read(status: dict[str, Any]) -> None:
    cluster, cache = OneClaim(), WatchCache()
    if not status:
        cache.put_child(job("train"))
    body = run_body({"fromTheFuture": True}, status=status, deleting=True)
    with pytest.raises(InvalidRunError):
        await Reconciler(cluster, cache, silence, SETTINGS, Metrics(dict, dict))(body)
    assert list(cluster.patches) == ["status"]


@pytest.mark.parametrize(
    ("status", "annotations"),
    [({}, {}), (TRAINED, {FORCE_RELEASE: UID})],
    ids=["before it trained", "forced"],
)
async def test_a_deleted_run_that_cannot_be_read_lets_go(status: dict[str, Any], annotations: dict[str, str]) -> None:
    body = run_body({"fromTheFuture": True}, status=status, annotations=annotations, deleting=True)
    cluster = OneClaim()
    await Reconciler(cluster, WatchCache(), silence, SETTINGS, Metrics(dict, dict))(body)
    assert cluster.patches == {"demo-results-0a1b2c3d": removed("7", "other"), "demo": removed("100")}


class NoMoreJobs(OneClaim):
    """A cluster whose quota refuses Jobs."""

    async def _call(self, method: str, path: str, *, body: object = None, **other: object) -> dict[str, Any]:
        if method == "POST" and path.endswith("/jobs"):
            raise ApiError(403, "Forbidden", "exceeded quota: team-a")
        if path.endswith("/demo/status"):
            self.patches["status"] = body
            return run_body(ARCHIVED_SPEC)
        return await super()._call(method, path, body=body, **other)


ARCHIVED_SPEC = {"archive": {"uri": "s3://bucket/runs"}, "tensorboard": {"enabled": False}}


async def test_a_refused_archive_job_does_not_hide_the_end() -> None:
    """A run whose training has ended does not say that it trains until the quota allows another Job."""
    cluster, cache = NoMoreJobs(), WatchCache()
    for child in (job("prepare", state="complete"), pod("prepare", state="succeeded", message=SUCCEEDED)):
        cache.put_child(child)
    for child in (job("train", state="complete"), pod("train", state="succeeded", message=SUCCEEDED)):
        cache.put_child(child)
    reconcile = Reconciler(cluster, cache, silence, SETTINGS, Metrics(dict, dict), clock=lambda: NOW)
    body = run_body(ARCHIVED_SPEC, status=TRAINED)
    with pytest.raises(ApiError, match="exceeded quota"):
        await reconcile(body)
    status = cluster.patches.pop("status")["status"]
    conditions = {c["type"]: f"{c['status']} {c['reason']}" for c in status["conditions"]}
    assert (status["phase"], conditions["Running"]) == ("Archiving", "False Completed")
    assert (conditions["Scheduled"], conditions["Archived"]) == ("True Scheduled", "False Refused")
    assert "exceeded quota: team-a" in status["message"]
    body["status"] = status
    with pytest.raises(ApiError, match="exceeded quota"):
        await reconcile(body)
    assert "status" not in cluster.patches, "once is enough"


class Deletions(OneClaim):
    """A cluster that notes which Jobs it is told to delete."""

    def __init__(self) -> None:
        super().__init__()
        self.uids: list[str | None] = []

    async def _call(self, method: str, path: str, *, body: object = None, **other: object) -> dict[str, Any]:
        if method == "DELETE" and "/jobs/" in path and isinstance(body, dict):
            self.uids.append(body.get("preconditions", {}).get("uid"))
        if path.endswith("/events"):
            return {"items": []}
        if path.endswith("/demo/status"):
            return run_body(status=TRAINED, deleting=True)
        return await super()._call(method, path, body=body, **other)


async def test_a_job_is_deleted_by_its_uid_and_once() -> None:
    """A request that comes late meets no successor of that name, and a successor is not taken for deleted."""
    cluster, cache = Deletions(), WatchCache()
    reconcile = Reconciler(cluster, cache, silence, SETTINGS, Metrics(dict, dict), clock=lambda: NOW)
    for uid in ("first", "first", "second"):
        child = job("train", state="active")
        child["metadata"]["uid"] = uid
        cache.put_child(child)
        await reconcile(run_body(status=TRAINED, deleting=True))
    assert cluster.uids == ["first", "second"]
