"""What the operator's own server says."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from dporun_operator.health import HealthServer
from dporun_operator.metrics import Metrics


@dataclass
class Stands:
    """How resync and lease stand."""

    age: float = 60.0
    overdue: bool = False
    name: str = "kube-system/dporun-operator"
    waits_for: str | None = None
    problem: str | None = None


@asynccontextmanager
async def served(stands: Stands) -> AsyncIterator[TestClient[Any, Any]]:
    both: Any = stands
    server = HealthServer(both, both, Metrics(dict, dict).registry, port=0)
    async with TestClient(TestServer(server.application())) as client:
        yield client


FORBIDDEN = "403 Forbidden: leases is forbidden"


@pytest.mark.parametrize(
    ("stands", "status", "words"),
    [
        (Stands(), 200, "last full list of the cluster 60 s ago"),
        (Stands(age=1800, overdue=True), 503, "last full list of the cluster 1800 s ago"),
        (Stands(waits_for="other holds it"), 200, "standing by for lease kube-system/dporun-operator: other holds it"),
        (
            Stands(waits_for=FORBIDDEN, problem=FORBIDDEN),
            503,
            f"standing by for lease kube-system/dporun-operator: {FORBIDDEN}",
        ),
    ],
    ids=["well", "resyncs fail", "stands by", "no right"],
)
async def test_health(stands: Stands, status: int, words: str) -> None:
    async with served(stands) as client:
        answer = await client.get("/healthz")
        assert (answer.status, await answer.text()) == (status, f"{words}\n")


async def test_metrics_are_served() -> None:
    async with served(Stands()) as client:
        answer = await client.get("/metrics")
        assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert "dporun_operator_status_writes_total 0.0" in await answer.text()
