"""One task per run: nothing is lost, nothing runs twice at once, errors back off."""

import asyncio
from collections import Counter
from typing import Any

import pytest

from dporun_operator.errors import ApiError
from dporun_operator.loop import Loop, Seen
from dporun_testing.builders import UID, job, pod, run_body


def version(body: dict[str, Any], number: int, **metadata: Any) -> dict[str, Any]:
    return {**body, "metadata": {**body["metadata"], "resourceVersion": str(number), **metadata}}


class Recorder:
    """Reconciles by writing down what it saw."""

    def __init__(self, *delays: float | Exception | None):
        self.seen: list[str] = []
        self.delays = list(delays)
        self.running = 0
        self.called = asyncio.Event()

    async def __call__(self, body: Any) -> float | None:
        assert self.running == 0
        self.running += 1
        await asyncio.sleep(0)
        self.running -= 1
        self.seen.append(body["metadata"]["resourceVersion"])
        self.called.set()
        delay = self.delays.pop(0) if self.delays else None
        if isinstance(delay, Exception):
            raise delay
        return delay

    async def wait(self, times: int) -> None:
        async with asyncio.timeout(20):
            while len(self.seen) < times:
                self.called.clear()
                await self.called.wait()


async def test_a_burst_of_events_is_one_look_at_the_newest() -> None:
    recorder, seen = Recorder(), Seen()
    loop = Loop(recorder, seen, resync_seconds=600)
    for number in (5, 7, 6):
        seen.run(version(run_body(), number))
        loop.wake(UID)
    await recorder.wait(1)
    assert recorder.seen == ["7"]
    await loop.stop()


async def test_an_event_during_a_look_causes_another() -> None:
    seen = Seen()
    looked = Counter[str]()
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def reconcile(body: Any) -> None:
        looked[body["metadata"]["resourceVersion"]] += 1
        entered.set()
        await go_on.wait()

    loop = Loop(reconcile, seen, resync_seconds=600)
    seen.run(version(run_body(), 1))
    loop.wake(UID)
    await entered.wait()
    entered.clear()
    seen.run(version(run_body(), 2))
    loop.wake(UID)
    go_on.set()
    async with asyncio.timeout(5):
        await entered.wait()
    assert looked == {"1": 1, "2": 1}
    await loop.stop()


async def test_a_run_asks_to_be_looked_at_again() -> None:
    recorder, seen = Recorder(0.01, 0.01), Seen()
    loop = Loop(recorder, seen, resync_seconds=600)
    seen.run(version(run_body(), 1))
    loop.wake(UID)
    await recorder.wait(3)
    await loop.stop()


async def test_an_error_is_tried_again_and_kills_nothing(caplog: pytest.LogCaptureFixture) -> None:
    recorder, seen = Recorder(ApiError(500, "Internal", "etcd is slow"), RuntimeError("a bug")), Seen()
    loop = Loop(recorder, seen, resync_seconds=600)
    seen.run(version(run_body(), 1))
    loop.wake(UID)
    await recorder.wait(3)
    assert "etcd is slow" in caplog.text
    assert "a bug" in caplog.text
    await loop.stop()


async def test_a_run_that_is_gone_is_not_looked_at() -> None:
    recorder, seen = Recorder(), Seen()
    loop = Loop(recorder, seen, resync_seconds=600)
    seen.run(version(run_body(), 1))
    loop.wake(UID)
    await recorder.wait(1)
    loop.drop(UID)
    loop.wake(UID)
    await asyncio.sleep(0)
    assert seen.runs == {}
    assert len(recorder.seen) == 1


def test_an_older_version_of_a_child_does_not_replace_a_newer_one() -> None:
    seen = Seen()
    seen.child(version(job("train", state="complete"), 9))
    seen.child(version(job("train"), 8))
    (kept,) = seen.children(UID, "team-a")
    assert kept["status"]["conditions"]


def test_children_keep_only_what_decisions_need() -> None:
    seen = Seen()
    body = pod("train")
    body["metadata"]["managedFields"] = [{"manager": "kubelet"}]
    body["spec"] = {"containers": [{"name": "trainer", "image": "x" * 1000}]}
    seen.child(body)
    (kept,) = seen.children(UID, "team-a")
    assert set(kept["spec"]) == {"suspend"}
    assert "managedFields" not in kept["metadata"]


def test_a_successor_of_the_same_name_outlives_the_end_of_its_predecessor() -> None:
    seen = Seen()
    old, new = version(job("train"), 1, uid="old"), version(job("train"), 5, uid="new")
    seen.child(old)
    seen.child(new)
    seen.drop(version(old, 6))
    assert [child["metadata"]["uid"] for child in seen.children(UID, "team-a")] == ["new"]


def test_a_relist_drops_what_went_away_unseen_and_keeps_what_came_meanwhile() -> None:
    seen = Seen()
    seen.child(version(job("train", 1), 3))
    seen.child(version(job("train", 2), 4))
    seen.child(version(pod("train", 1), 4))
    newest = seen.newest_version()
    seen.child(version(job("train", 3), 9))
    seen.relist("Job", [version(job("train", 2), 6)], before=newest)
    names = sorted(child["metadata"]["name"] for child in seen.children(UID, "team-a"))
    assert names == ["demo-train-1-0-abcde", "demo-train-2", "demo-train-3"]


def test_a_run_is_found_by_its_name() -> None:
    seen = Seen()
    seen.run(run_body(name="other"))
    assert seen.find("team-a", "other") is not None
    assert seen.find("team-b", "other") is None


def test_a_pod_of_another_namespace_is_no_child_whatever_its_labels_say() -> None:
    seen = Seen()
    seen.child(version(pod("train"), 1, namespace="intruder"))
    assert seen.children(UID, "team-a") == []


def test_nothing_is_kept_of_runs_that_are_gone() -> None:
    seen = Seen()
    seen.child(version(pod("train"), 1))
    seen.drop(version(pod("train"), 2))
    assert seen.newest_version() == 0
