"""The cluster without the lease."""

from collections.abc import Awaitable, Callable

import pytest

from dporun_operator.cluster import Cluster
from dporun_operator.errors import NotHolderError

METADATA = {
    "namespace": "team-a",
    "name": "demo",
    "labels": {"dporun.io/run-uid": "1"},
    "resourceVersion": "1",
    "finalizers": ["ours"],
}
JOB = {"kind": "Job", "metadata": METADATA}

WRITES: dict[str, Callable[[Cluster], Awaitable[object]]] = {
    "apply": lambda cluster: cluster.apply(JOB),
    "create": lambda cluster: cluster.create(JOB),
    "post": lambda cluster: cluster.post(JOB),
    "delete": lambda cluster: cluster.delete("Job", "team-a", "demo"),
    "patch": lambda cluster: cluster.patch("PersistentVolume", None, "pv-1", {}),
    "remove_annotation": lambda cluster: cluster.remove_annotation("DPORun", METADATA, "dporun.io/retry"),
    "add_finalizer": lambda cluster: cluster.add_finalizer("DPORun", METADATA, "other"),
    "remove_finalizer": lambda cluster: cluster.remove_finalizer("DPORun", METADATA, "ours"),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
async def test_nothing_is_written_without_the_lease(write: Callable[[Cluster], Awaitable[object]]) -> None:
    cluster = Cluster(None).guarded_by(lambda: False)  # not even connected
    with pytest.raises(NotHolderError, match="not sent, because this operator does not hold the lease"):
        await write(cluster)
    assert not cluster.requests
