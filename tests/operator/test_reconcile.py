"""What the reconciler does not do."""

import pytest

from dporun_api.results import Progress
from dporun_operator.cache import WatchCache
from dporun_operator.cluster import Cluster
from dporun_operator.errors import InvalidRunError
from dporun_operator.metrics import Metrics
from dporun_operator.reconcile import Reconciler
from dporun_testing.builders import SETTINGS, run_body


async def silence(_namespace: str, _pod: str, _address: str | None) -> Progress | None:
    return None


@pytest.mark.parametrize("deleting", [False, True])
async def test_a_trained_run_that_cannot_be_read_is_left_alone(deleting: bool) -> None:
    body = run_body({"fromTheFuture": True}, status={"phase": "Training", "attempt": 1}, deleting=deleting)
    unconnected = Cluster(None)  # any request would raise another error
    reconcile = Reconciler(unconnected, WatchCache(), silence, SETTINGS, Metrics(dict, int))
    with pytest.raises(InvalidRunError, match="fromTheFuture"):
        await reconcile(body)
