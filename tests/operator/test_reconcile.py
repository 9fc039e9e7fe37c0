"""What the reconciler does with a run that it cannot read."""

from typing import Any

import pytest

from dporun_api.results import Progress
from dporun_operator.cache import WatchCache
from dporun_operator.cluster import Cluster
from dporun_operator.errors import InvalidRunError
from dporun_operator.metrics import Metrics
from dporun_operator.reconcile import Reconciler
from dporun_testing.builders import SETTINGS, UID, run_body

FORCE_RELEASE = "dporun.io/force-release"


async def silence(_namespace: str, _pod: str, _address: str | None) -> Progress | None:
    return None


@pytest.mark.parametrize(("deleting", "annotations"), [(False, {}), (True, {}), (False, {FORCE_RELEASE: UID})])
async def test_a_trained_run_that_cannot_be_read_is_left_alone(deleting: bool, annotations: dict[str, str]) -> None:
    trained = {"phase": "Training", "attempt": 1}
    body = run_body({"fromTheFuture": True}, status=trained, deleting=deleting, annotations=annotations)
    unconnected = Cluster(None)  # any request would raise another error
    reconcile = Reconciler(unconnected, WatchCache(), silence, SETTINGS, Metrics(dict, dict))
    with pytest.raises(InvalidRunError, match="fromTheFuture"):
        await reconcile(body)


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
        metadata = {"name": name, "namespace": namespace, "resourceVersion": "7"}
        return {"metadata": {**metadata, "labels": labels, "finalizers": finalizers}}


def removed(version: str, *rest: str) -> list[dict[str, Any]]:
    return [
        {"op": "test", "path": "/metadata/resourceVersion", "value": version},
        {"op": "add", "path": "/metadata/finalizers", "value": list(rest)},
    ]


@pytest.mark.parametrize(
    ("status", "annotations"),
    [({}, {}), ({"phase": "Training", "attempt": 1}, {FORCE_RELEASE: UID})],
    ids=["before it trained", "forced"],
)
async def test_a_deleted_run_that_cannot_be_read_lets_go(status: dict[str, Any], annotations: dict[str, str]) -> None:
    body = run_body({"fromTheFuture": True}, status=status, annotations=annotations, deleting=True)
    cluster = OneClaim()
    await Reconciler(cluster, WatchCache(), silence, SETTINGS, Metrics(dict, dict))(body)
    assert cluster.patches == {"demo-results-0a1b2c3d": removed("7", "other"), "demo": removed("100")}
