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


class OneClaim:
    """A cluster in which there is only the claim of the run."""

    def __init__(self) -> None:
        self.finalizers: dict[str, list[str]] = {}

    async def find(self, _kind: str, _namespace: str, name: str, *, run_uid: str) -> dict[str, Any]:
        assert run_uid == UID
        return {"metadata": {"name": name, "resourceVersion": "7", "finalizers": ["dporun.io/results", "other"]}}

    async def set_finalizers(
        self, kind: str, _namespace: str, name: str, finalizers: list[str], *, resource_version: str
    ) -> dict[str, Any]:
        self.finalizers[f"{kind}/{name}"] = finalizers
        return {"metadata": {"resourceVersion": resource_version}}


@pytest.mark.parametrize(
    ("status", "annotations"),
    [({}, {}), ({"phase": "Training", "attempt": 1}, {FORCE_RELEASE: UID})],
    ids=["before it trained", "forced"],
)
async def test_a_deleted_run_that_cannot_be_read_lets_go(status: dict[str, Any], annotations: dict[str, str]) -> None:
    body = run_body({"fromTheFuture": True}, status=status, annotations=annotations, deleting=True)
    cluster: Any = OneClaim()
    await Reconciler(cluster, WatchCache(), silence, SETTINGS, Metrics(dict, dict))(body)
    assert cluster.finalizers == {
        "PersistentVolumeClaim/demo-results-0a1b2c3d": ["other"],
        "DPORun/demo": [],
    }
