"""The cluster without the lease."""

from collections.abc import Awaitable, Callable

import pytest

from dporun_operator.cluster import Cluster
from dporun_operator.errors import NotHolderError

METADATA = {"namespace": "team-a", "name": "demo", "labels": {"dporun.io/run-uid": "1"}}
JOB = {"kind": "Job", "metadata": METADATA}

WRITES: dict[str, Callable[[Cluster], Awaitable[object]]] = {
    "apply": lambda cluster: cluster.apply(JOB),
    "create": lambda cluster: cluster.create(JOB),
    "post": lambda cluster: cluster.post(JOB),
    "delete": lambda cluster: cluster.delete("Job", "team-a", "demo"),
    "set_finalizers": lambda cluster: cluster.set_finalizers("DPORun", "team-a", "demo", [], resource_version="1"),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
async def test_nothing_is_written_without_the_lease(write: Callable[[Cluster], Awaitable[object]]) -> None:
    cluster = Cluster(None).guarded_by(lambda: False)  # not even connected
    with pytest.raises(NotHolderError, match="not sent, because this operator does not hold the lease"):
        await write(cluster)
    assert not cluster.requests
