"""Who may act: the decisions, and one operator beside another one's Lease."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from dporun_operator.errors import ApiError
from dporun_operator.lease import Lease, Seen, held_by, look, may_act, may_take

AT = datetime(2026, 1, 5, 10, 0, 0, tzinfo=UTC)
THEIRS = {"holderIdentity": "other", "leaseDurationSeconds": 15, "renewTime": "2026-01-05T10:00:00.000000Z"}


@pytest.mark.parametrize(
    ("spec", "unchanged_for", "taken"),
    [
        ({}, 0, True),
        ({**THEIRS, "holderIdentity": ""}, 0, True),
        (THEIRS, 0, False),
        (THEIRS, 14.9, False),
        (THEIRS, 15, True),
        ({**THEIRS, "holderIdentity": "ours"}, 0, True),
    ],
    ids=["none yet", "given back", "held", "almost expired", "expired", "ours; the answer was lost"],
)
def test_a_lease_is_taken_when_it_is_free_or_expired(spec: dict[str, Any], unchanged_for: float, taken: bool) -> None:
    assert may_take(Seen(spec, since=100.0), "ours", 100.0 + unchanged_for) is taken


def test_a_renewal_begins_the_time_anew() -> None:
    """What time the holder says it was does not matter: its clock may be wrong."""
    first = look(THEIRS, None, 100.0)
    assert look(dict(THEIRS), first, 110.0).since == 100.0
    assert look({**THEIRS, "renewTime": "1999-01-01T00:00:00.000000Z"}, first, 110.0).since == 110.0


@pytest.mark.parametrize(
    ("renewed_at", "now", "acts"), [(None, 0.0, False), (100.0, 109.9, True), (100.0, 110.0, False)]
)
def test_a_holder_stops_before_the_lease_can_be_taken(renewed_at: float | None, now: float, acts: bool) -> None:
    assert may_act(renewed_at, now, seconds=15) is acts


def test_a_change_of_the_holder_is_counted() -> None:
    first = held_by("a", {}, seconds=15, at=AT)
    assert first == {
        "holderIdentity": "a",
        "leaseDurationSeconds": 15,
        "acquireTime": "2026-01-05T10:00:00.000000Z",
        "renewTime": "2026-01-05T10:00:00.000000Z",
        "leaseTransitions": 0,
    }
    later = AT.replace(second=5)
    assert held_by("a", first, seconds=15, at=later) == {**first, "renewTime": "2026-01-05T10:00:05.000000Z"}
    other = held_by("b", first, seconds=15, at=later)
    assert (other["leaseTransitions"], other["acquireTime"]) == (1, "2026-01-05T10:00:05.000000Z")


class OneLease:
    """The API server's side: one Lease, whose versions conflict."""

    def __init__(self) -> None:
        self.spec: dict[str, Any] | None = None
        self.version = 0
        self.written = asyncio.Event()
        self.answers = True

    async def get(self, _kind: str, _namespace: str, _name: str) -> dict[str, Any] | None:
        return None if self.spec is None else {"metadata": {"resourceVersion": str(self.version)}, "spec": self.spec}

    async def post(self, manifest: dict[str, Any]) -> dict[str, Any]:
        assert self.spec is None
        return self.write(manifest["spec"])

    async def apply(self, manifest: dict[str, Any]) -> dict[str, Any]:
        if manifest["metadata"]["resourceVersion"] != str(self.version):
            raise ApiError(409, "Conflict", "the object has been modified")
        written = self.write(manifest["spec"])
        if not self.answers:
            self.answers = True
            raise ApiError(0, "ServerDisconnectedError", "the answer was lost")
        return written

    def write(self, spec: dict[str, Any]) -> dict[str, Any]:
        self.spec, self.version = spec, self.version + 1
        self.written.set()
        return {"metadata": {"resourceVersion": str(self.version)}, "spec": spec}


@pytest.fixture
def server() -> OneLease:
    return OneLease()


def a_lease(server: Any, on_lost: Callable[[], None] = lambda: None) -> Lease:
    return Lease(server, namespace="kube-system", seconds=3, on_lost=on_lost)


async def next_write(server: OneLease) -> None:
    server.written.clear()
    async with asyncio.timeout(20):
        await server.written.wait()


async def test_a_lease_is_held_until_it_is_given_back(server: OneLease) -> None:
    lease = a_lease(server)
    assert not lease.is_held()
    async with lease.held():
        assert lease.is_held()
        assert lease.waits_for is None
        await next_write(server)  # a renewal
        assert server.spec is not None
        assert server.spec["holderIdentity"]
    assert not lease.is_held()
    assert server.spec["holderIdentity"] == ""


async def test_the_answer_to_a_renewal_may_be_lost(server: OneLease) -> None:
    lease = a_lease(server)
    async with lease.held():
        server.answers = False  # to the next write
        await next_write(server)
        await next_write(server)
        assert lease.is_held()
        assert not lease.lost
        assert lease.problem is None


async def test_a_lease_that_another_one_has_taken_is_lost(server: OneLease) -> None:
    """It is not given back either: it is not ours."""
    told = asyncio.Event()
    lease = a_lease(server, told.set)
    async with lease.held():
        server.write(THEIRS)
        async with asyncio.timeout(20):
            await told.wait()
        assert lease.lost
        assert not lease.is_held()
    assert server.spec == THEIRS


async def test_an_operator_stands_by_until_the_lease_is_free(server: OneLease) -> None:
    server.write(THEIRS)
    lease = a_lease(server)
    async with asyncio.TaskGroup() as tasks:
        taking = tasks.create_task(lease.held().__aenter__())
        while lease.waits_for != "other holds it":  # noqa: ASYNC110
            await asyncio.sleep(0)
        assert not taking.done()
        server.write({**THEIRS, "holderIdentity": ""})
    assert lease.is_held()


async def test_a_lease_that_cannot_be_read_is_told(server: OneLease, monkeypatch: pytest.MonkeyPatch) -> None:
    async def forbidden(*_: str) -> None:
        raise ApiError(403, "Forbidden", "leases is forbidden")

    monkeypatch.setattr(server, "get", forbidden)
    lease = a_lease(server)
    taking = asyncio.create_task(lease.held().__aenter__())
    async with asyncio.timeout(20):
        while lease.problem is None:  # noqa: ASYNC110
            await asyncio.sleep(0)
    taking.cancel()
    assert lease.waits_for == "403 Forbidden: leases is forbidden"
