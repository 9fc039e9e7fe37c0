"""One task per run: woken by watch events, by its own timer and by the resync; backing off after errors.

The watches only keep what was seen last; the task decides from that. So no event is lost or handled twice, and an
operator that starts in the middle of anything (a deletion, too) goes on from what it finds.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from dporun_operator import names
from dporun_operator.errors import ApiError, OperatorError
from dporun_operator.plan.observed import slim

log = logging.getLogger(__name__)

LONGEST_BACKOFF_SECONDS = 60.0

Body = Mapping[str, Any]
Reconcile = Callable[[Body], Awaitable[float | None]]
"""Brings one run forward; returns after how many seconds to look again, None for the resync."""


class Seen:
    """What the watches saw last: every run, and the Jobs and Pods of each."""

    def __init__(self) -> None:
        self.runs: dict[str, Body] = {}
        self._children: dict[str, dict[tuple[str, str, str], Body]] = {}

    def run(self, body: Body) -> None:
        """Keep a run, unless a newer version of it has been seen."""
        uid = body["metadata"]["uid"]
        if uid not in self.runs or _version(body) >= _version(self.runs[uid]):
            self.runs[uid] = body

    def forget(self, uid: str) -> None:
        """A run is gone."""
        self.runs.pop(uid, None)
        self._children.pop(uid, None)

    def child(self, body: Body) -> None:
        """Keep a Job or Pod, unless a newer version of it has been seen."""
        key, children = _key(body), self._children.setdefault(_owner(body), {})
        if key not in children or _version(body) >= _version(children[key]):
            children[key] = slim(body)

    def drop(self, body: Body) -> None:
        """A Job or Pod is gone."""
        owner, key = _owner(body), _key(body)
        children = self._children.get(owner, {})
        if (kept := children.get(key)) and kept["metadata"]["uid"] == body["metadata"]["uid"]:
            del children[key]
        if not children:
            self._children.pop(owner, None)

    def children(self, uid: str, namespace: str) -> list[Body]:
        """The Jobs and Pods of a run. What bears its label in another namespace is not one of them."""
        found = self._children.get(uid, {}).items()
        return [body for (_, place, _), body in found if place == namespace]

    def relist(self, kind: str, found: Iterable[Body], *, before: int) -> None:
        """Replace the Jobs or the Pods by a fresh list.

        Args:
            kind: Job or Pod.
            found: all of them.
            before: newest version that had been seen when the list was asked for. What is newer and not in the list
                came meanwhile and stays; what is older and not in it went away unseen.

        """
        found = list(found)
        listed = {body["metadata"]["uid"] for body in found}
        for children in self._children.values():
            for key, body in list(children.items()):
                if key[0] == kind and body["metadata"]["uid"] not in listed and _version(body) <= before:
                    del children[key]
        for body in found:
            self.child(body)

    def find(self, namespace: str, name: str) -> Body | None:
        """The run of that name."""
        metadata = ((body, body["metadata"]) for body in self.runs.values())
        return next((body for body, m in metadata if (m["namespace"], m["name"]) == (namespace, name)), None)

    def newest_version(self) -> int:
        """The newest version of any child seen."""
        return max((_version(b) for children in self._children.values() for b in children.values()), default=0)


class Loop:
    """The tasks."""

    def __init__(self, reconcile: Reconcile, seen: Seen, *, resync_seconds: float):
        self._reconcile = reconcile
        self._seen = seen
        self._resync_seconds = resync_seconds
        self._wakers: dict[str, asyncio.Event] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def wake(self, uid: str) -> None:
        """Reconcile a run now, or right after the reconciliation under way."""
        if uid not in self._seen.runs:
            return
        self._wakers.setdefault(uid, asyncio.Event()).set()
        if uid not in self._tasks or self._tasks[uid].done():
            self._tasks[uid] = asyncio.create_task(self._work(uid), name=f"run {uid}")

    def drop(self, uid: str) -> None:
        """A run is gone."""
        self._seen.forget(uid)
        self._wakers.pop(uid, None)
        if task := self._tasks.pop(uid, None):
            task.cancel()

    async def stop(self) -> None:
        """Cancel every task and wait for it to end."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _work(self, uid: str) -> None:
        failures = 0
        while (body := self._seen.runs.get(uid)) is not None:
            waker = self._wakers[uid]
            waker.clear()
            try:
                delay = await self._reconcile(body)
                failures = 0
            except Exception as error:  # noqa: BLE001  whatever it is, the run is tried again, and never let go
                failures += 1
                delay = min(2.0 ** min(failures - 1, 10), LONGEST_BACKOFF_SECONDS)
                _report(body, error, delay)
                if failures > 1:
                    await asyncio.sleep(delay)  # an event does not cut this short: it may be caused by the error
            limit = self._resync_seconds if delay is None else min(delay, self._resync_seconds)
            try:
                await asyncio.wait_for(waker.wait(), limit * random.uniform(1.0, 1.1))  # noqa: S311
            except TimeoutError:
                continue


def _report(body: Body, error: Exception, delay: float) -> None:
    name = f"{body['metadata']['namespace']}/{body['metadata']['name']}"
    expected = isinstance(error, OperatorError)
    if isinstance(error, ApiError) and error.conflict:
        log.info("%s: changed meanwhile, trying again: %s", name, error)
    else:
        log.error("%s: %s; trying again in %.0f s", name, error, delay, exc_info=None if expected else error)


def _owner(body: Body) -> str:
    return str(body["metadata"]["labels"][names.RUN_UID])


def _key(body: Body) -> tuple[str, str, str]:
    return body["kind"], body["metadata"]["namespace"], body["metadata"]["name"]


def _version(body: Body) -> int:
    text = str(body["metadata"].get("resourceVersion", "0"))
    return int(text) if text.isdecimal() else 0
