"""One task per run: nothing is lost, nothing runs twice at once, errors back off."""

import asyncio
from collections import Counter
from typing import Any

import pytest

from dporun_operator.cache import WatchCache
from dporun_operator.errors import ApiError
from dporun_operator.loop import Loop, spread
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


async def test_an_error_is_tried_again_and_kills_nothing(caplog: pytest.LogCaptureFixture) -> None:
    recorder, cache = Recorder(ApiError(500, "Internal", "etcd is slow"), RuntimeError("a bug")), WatchCache()
    loop = Loop(recorder, cache, resync_seconds=600, jitter=lambda: 0.001)
    cache.put_run(version(run_body(), 1))
    loop.wake(UID)
    await recorder.wait(3)
    assert "team-a/demo: 500 Internal: etcd is slow; retrying in 1 s" in caplog.text
    assert "team-a/demo: a bug; retrying in 2 s" in caplog.text
    await loop.stop()


async def test_a_wait_is_stretched_by_the_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    async def wait_for(waiting: Any, seconds: float) -> None:
        waits.append(seconds)
        waiting.close()
        await asyncio.sleep(0)
        raise TimeoutError

    monkeypatch.setattr("dporun_operator.loop.asyncio.wait_for", wait_for)
    recorder, cache = Recorder(30.0, None, 900.0), WatchCache()
    loop = Loop(recorder, cache, resync_seconds=600, jitter=lambda: 1.5)
    cache.put_run(version(run_body(), 1))
    loop.wake(UID)
    await recorder.wait(4)
    await loop.stop()
    assert waits[:3] == [45.0, 900.0, 900.0]


def test_the_jitter_is_a_tenth_at_most() -> None:
    assert all(1.0 <= spread() <= 1.1 for _ in range(100))


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
