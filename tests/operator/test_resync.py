"""The resync finds what the watches missed, and its age says whether it works."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from dporun_operator import resync as module
from dporun_operator.cache import WatchCache
from dporun_operator.errors import ApiError
from dporun_operator.resync import Resync
from dporun_testing.builders import UID, job, pod, run_body, version


class Listed:
    """A cluster that has what its attribute says, or fails first."""

    def __init__(self, *objects: dict[str, Any], failures: int = 0):
        self.objects = objects
        self.failures = failures
        self.namespaces: list[str | None] = []
        self.during: Callable[[str], None] = lambda _: None

    async def list(self, kind: str, *, namespace: str | None, label: str | None = None) -> list[dict[str, Any]]:
        self.namespaces.append(namespace)
        if self.failures:
            self.failures -= 1
            raise ApiError(404, "NotFound", "the CRD is not there yet")
        assert (label is None) == (kind == "DPORun")
        self.during(kind)
        return [item for item in self.objects if item["kind"] == kind]


class Tasks:
    """A loop that only writes down what it is asked."""

    def __init__(self, cache: WatchCache):
        self.cache = cache
        self.woken: asyncio.Queue[str] = asyncio.Queue()

    def wake(self, uid: str) -> None:
        self.woken.put_nowait(uid)

    def remove(self, uid: str) -> None:
        self.cache.remove_run(uid)


class Claims:
    """Orphans that only write down which claims and runs they are told of."""

    def __init__(self) -> None:
        self.told: list[tuple[list[str], set[str]]] = []

    async def report(self, claims: list[dict[str, Any]], runs: set[str]) -> None:
        self.told.append(([claim["metadata"]["name"] for claim in claims], runs))


def a_resync(cluster: Listed, cache: WatchCache, orphans: Claims | None = None, **options: Any) -> tuple[Resync, Tasks]:
    tasks = Tasks(cache)
    settings = {"namespaces": (), "seconds": 600, **options}
    return Resync(cluster, cache, tasks, orphans or Claims(), **settings), tasks


async def test_a_resync_finds_what_is_new_and_what_was_deleted() -> None:
    """Both unseen by the watches."""
    cache = WatchCache()
    cache.put_run(run_body(uid="deleted"))
    cache.put_child(version(pod("train"), 3))
    resync, _ = a_resync(Listed(run_body(), version(job("train"), 5)), cache)
    await resync.list_until_served()
    assert set(cache.runs) == {UID}
    assert [child["kind"] for child in cache.children_of(UID, "team-a")] == ["Job"]


async def test_a_run_that_a_watch_adds_meanwhile_stays() -> None:
    cache, cluster = WatchCache(), Listed()
    cache.put_run(run_body(uid="deleted"))
    cluster.during = lambda kind: cache.put_run(run_body()) if kind == "DPORun" else None
    resync, _ = a_resync(cluster, cache)
    await resync.list_until_served()
    assert set(cache.runs) == {UID}


async def test_only_the_watched_namespaces_are_listed() -> None:
    cluster = Listed()
    resync, _ = a_resync(cluster, WatchCache(), namespaces=("team-a", "team-b"))
    await resync.list_until_served()
    assert cluster.namespaces == ["team-a", "team-b"] * 4


CLAIM = {"kind": "PersistentVolumeClaim", "metadata": {"name": "demo-results"}}


async def test_claims_are_compared_with_runs_that_were_listed_later() -> None:
    """A run that is applied during the list, and its claim made, has not lost it."""
    cluster, orphans, asked = Listed(CLAIM, run_body()), Claims(), []
    cluster.during = asked.append
    resync, _ = a_resync(cluster, WatchCache(), orphans)
    await resync.list_until_served()
    assert asked.index("PersistentVolumeClaim") < asked.index("DPORun")
    assert orphans.told == [(["demo-results"], {UID})]


async def test_without_rights_on_claims_all_else_is_listed() -> None:
    def refuse(kind: str) -> None:
        if kind == "PersistentVolumeClaim":
            raise ApiError(403, "Forbidden", "cannot list")

    cluster, orphans, cache = Listed(CLAIM, run_body()), Claims(), WatchCache()
    cluster.during = refuse
    resync, _ = a_resync(cluster, cache, orphans)
    await resync.list_until_served()
    assert set(cache.runs) == {UID}
    assert orphans.told == [([], {UID})]


async def test_the_first_list_waits_for_the_crd(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "CappedBackoffs", lambda: (0.0, 0.0, 0.0))
    cache = WatchCache()
    resync, _ = a_resync(Listed(run_body(), failures=2), cache)
    await resync.list_until_served()
    assert set(cache.runs) == {UID}
    assert caplog.text.count("cannot list dporuns; retrying in 0 s") == 2


@pytest.mark.parametrize("failures", [0, 1])
async def test_every_run_is_woken_whether_the_list_worked_or_not(failures: int) -> None:
    cache = WatchCache()
    cache.put_run(run_body())
    resync, tasks = a_resync(Listed(run_body(), failures=failures), cache, seconds=0.001)
    running = asyncio.create_task(resync.run())
    async with asyncio.timeout(20):
        assert await tasks.woken.get() == UID
    running.cancel()


async def test_what_was_deleted_before_the_watches_began(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the first list and that of a watch; the next regular resync is ten minutes away."""
    monkeypatch.setattr(module, "WATCHES_BEGIN_SECONDS", 0.001)
    cache, cluster = WatchCache(), Listed(run_body(), job("prepare"))
    resync, tasks = a_resync(cluster, cache, seconds=600)
    await resync.list_until_served()
    assert len(cache.children_of(UID, "team-a")) == 1
    cluster.objects = (run_body(),)
    running = asyncio.create_task(resync.run())
    async with asyncio.timeout(20):
        assert await tasks.woken.get() == UID
    running.cancel()
    assert cache.children_of(UID, "team-a") == []


async def test_a_resync_that_fails_for_long_is_overdue() -> None:
    """Its age begins with the first list: an operator may have stood by for hours before."""
    now = 5000.0
    resync, _ = a_resync(Listed(), WatchCache(), clock=lambda: now)
    now = 10_000.0
    await resync.list_until_served()
    now += 1799
    assert not resync.overdue
    now += 1
    assert resync.overdue
    assert resync.age == 1800
    await resync.list_until_served()
    assert not resync.overdue
