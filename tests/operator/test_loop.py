"""One task per run: nothing is lost, nothing runs twice at once, errors back off."""

import asyncio
from collections import Counter
from typing import Any

import pytest

from dporun_operator.cache import WatchCache
from dporun_operator.errors import ApiError
from dporun_operator.loop import Loop
from dporun_testing.builders import UID, run_body, version


class Recorder:
    """Reconciles by writing down what it saw."""

    def __init__(self, *delays: float | Exception | None):
        self.seen: list[str] = []
        self.delays = list(delays)
        self.forgotten: list[str] = []
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

    def forget(self, uid: str) -> None:
        self.forgotten.append(uid)

    async def wait(self, times: int) -> None:
        async with asyncio.timeout(20):
            while len(self.seen) < times:
                self.called.clear()
                await self.called.wait()


async def test_a_burst_of_events_is_one_look_at_the_newest() -> None:
    recorder, cache = Recorder(), WatchCache()
    loop = Loop(recorder, cache, resync_seconds=600)
    for number in (5, 7, 6):
        cache.put_run(version(run_body(), number))
        loop.wake(UID)
    await recorder.wait(1)
    assert recorder.seen == ["7"]
    await loop.stop()


async def test_an_event_during_a_look_causes_another() -> None:
    cache = WatchCache()
    looked = Counter[str]()
    entered, go_on = asyncio.Event(), asyncio.Event()

    class Blocking(Recorder):
        async def __call__(self, body: Any) -> None:
            looked[body["metadata"]["resourceVersion"]] += 1
            entered.set()
            await go_on.wait()

    loop = Loop(Blocking(), cache, resync_seconds=600)
    cache.put_run(version(run_body(), 1))
    loop.wake(UID)
    await entered.wait()
    entered.clear()
    cache.put_run(version(run_body(), 2))
    loop.wake(UID)
    go_on.set()
    async with asyncio.timeout(5):
        await entered.wait()
    assert looked == {"1": 1, "2": 1}
    await loop.stop()


async def test_a_run_asks_to_be_looked_at_again() -> None:
    recorder, cache = Recorder(0.01, 0.01), WatchCache()
    loop = Loop(recorder, cache, resync_seconds=600)
    cache.put_run(version(run_body(), 1))
    loop.wake(UID)
    await recorder.wait(3)
    await loop.stop()


async def test_an_error_is_tried_again_and_kills_nothing(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dporun_operator.loop.LONGEST_BACKOFF_SECONDS", 0.01)
    recorder, cache = Recorder(ApiError(500, "Internal", "etcd is slow"), RuntimeError("a bug")), WatchCache()
    loop = Loop(recorder, cache, resync_seconds=600)
    cache.put_run(version(run_body(), 1))
    loop.wake(UID)
    await recorder.wait(3)
    assert "etcd is slow" in caplog.text
    assert "a bug" in caplog.text
    await loop.stop()


async def test_a_run_that_is_gone_is_not_looked_at() -> None:
    recorder, cache = Recorder(), WatchCache()
    loop = Loop(recorder, cache, resync_seconds=600)
    cache.put_run(version(run_body(), 1))
    loop.wake(UID)
    await recorder.wait(1)
    loop.remove(UID)
    loop.wake(UID)
    await asyncio.sleep(0)
    assert cache.runs == {}
    assert len(recorder.seen) == 1
    assert recorder.forgotten == [UID]
