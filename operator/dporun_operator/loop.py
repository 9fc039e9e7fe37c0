"""One task per run: woken by watch events, by its own timer and by the resync; backing off after errors.

The watches only fill the cache; the task decides from what it finds there. So no event is lost or handled twice, and
an operator that starts in the middle of anything (a deletion, too) goes on from what it finds.
"""

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Protocol

from dporun_operator.cache import Body, WatchCache
from dporun_operator.errors import ApiError, OperatorError

log = logging.getLogger(__name__)

LONGEST_BACKOFF_SECONDS = 60.0


class Reconcile(Protocol):
    """What the loop does with a run."""

    async def __call__(self, body: Body) -> float | None:
        """Bring a run one step forward; returns the seconds until its next turn, None to wait for an event."""

    def forget(self, uid: str) -> None:
        """Drop whatever is remembered about a run that no longer exists."""


def spread() -> float:
    """A factor from 1.0 to 1.1, for every wait: runs that were woken together do not stay together."""
    return random.uniform(1.0, 1.1)  # noqa: S311  no secret


class Loop:
    """The tasks, one for each run of the cache that was woken."""

    def __init__(
        self, reconcile: Reconcile, cache: WatchCache, *, resync_seconds: float, jitter: Callable[[], float] = spread
    ):
        self._reconcile = reconcile
        self._cache = cache
        self._resync_seconds = resync_seconds
        self._jitter = jitter
        self._wakers: dict[str, asyncio.Event] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def wake(self, uid: str) -> None:
        """Reconcile a run now, or right after the reconciliation under way; an unknown run is ignored."""
        if uid not in self._cache.runs:
            return
        self._wakers.setdefault(uid, asyncio.Event()).set()
        if uid not in self._tasks or self._tasks[uid].done():
            self._tasks[uid] = asyncio.create_task(self._work(uid), name=f"run {uid}")

    def remove(self, uid: str) -> None:
        """End the task of a run that no longer exists, and forget the run."""
        self._cache.remove_run(uid)
        self._wakers.pop(uid, None)
        if task := self._tasks.pop(uid, None):
            task.cancel()
        self._reconcile.forget(uid)

    async def stop(self) -> None:
        """Cancel every task and wait for it to end."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _work(self, uid: str) -> None:
        failures = 0
        while (body := self._cache.runs.get(uid)) is not None:
            waker = self._wakers[uid]
            waker.clear()
            try:
                delay = await self._reconcile(body)
                failures = 0
            except Exception as error:  # noqa: BLE001  whatever it is, the run is retried and never let go
                failures += 1
                delay = min(2.0 ** min(failures - 1, 10), LONGEST_BACKOFF_SECONDS)
                _report(body, error, delay)
                if failures > 1:  # an event does not cut this short: it may be caused by the error
                    await asyncio.sleep(delay * self._jitter())
                    continue
            limit = self._resync_seconds if delay is None else min(delay, self._resync_seconds)
            try:
                await asyncio.wait_for(waker.wait(), limit * self._jitter())
            except TimeoutError:
                continue


def _report(body: Body, error: Exception, delay: float) -> None:
    name = f"{body['metadata']['namespace']}/{body['metadata']['name']}"
    expected = isinstance(error, OperatorError)
    if isinstance(error, ApiError) and error.conflict:
        log.info("%s: changed meanwhile, retrying: %s", name, error)
    else:
        log.error("%s: %s; retrying in %.0f s", name, error, delay, exc_info=None if expected else error)
