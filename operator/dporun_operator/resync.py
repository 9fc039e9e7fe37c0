"""The resync: lists everything now and then, because an interrupted watch misses what is deleted meanwhile."""

import asyncio
import itertools
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from dporun_api.v1alpha1 import KIND, PLURAL
from dporun_operator import names
from dporun_operator.cache import Body, WatchCache
from dporun_operator.cluster import Cluster
from dporun_operator.errors import ApiError, OperatorError
from dporun_operator.loop import Loop
from dporun_operator.orphans import Orphans

log = logging.getLogger(__name__)

WATCHED_CHILDREN = ("Job", "Pod")
WATCHES_BEGIN_SECONDS = 15.0
"""After the first list, so that all watches have begun by then."""


class CappedBackoffs(Iterable[float]):
    """1, 2, 4, 8, 16, 30, 30, … seconds: an API server that is away for an hour does not end the operator."""

    def __iter__(self) -> Iterator[float]:
        """Begin anew."""
        return itertools.chain((1.0, 2.0, 4.0, 8.0, 16.0), itertools.repeat(30.0))


class Resync:
    """Brings the cache in line with the API server and wakes every run.

    Args:
        orphans: get every claim of ours.
        namespaces: to list; the whole cluster when empty.
        seconds: between two resyncs.
        clock: monotonic, in seconds.

    """

    def __init__(
        self,
        cluster: Cluster,
        cache: WatchCache,
        loop: Loop,
        orphans: Orphans,
        *,
        namespaces: Sequence[str],
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._cluster = cluster
        self._cache = cache
        self._loop = loop
        self._orphans = orphans
        self._namespaces = namespaces or (None,)
        self._seconds = seconds
        self._clock = clock
        self._listed_at = clock()

    @property
    def age(self) -> float:
        """Seconds since the last list that succeeded; before the first one, since the start."""
        return self._clock() - self._listed_at

    @property
    def overdue(self) -> bool:
        """Whether several resyncs in a row have failed or hang."""
        return self.age >= 3 * self._seconds

    async def list_until_served(self) -> None:
        """List everything; waits for the CustomResourceDefinition, because kopf looks for it only once."""
        self._listed_at = self._clock()
        for delay in CappedBackoffs():
            try:
                await self._list()
            except OperatorError as error:
                log.warning("cannot list %s; retrying in %.0f s: %s", PLURAL, delay, error)
                await asyncio.sleep(delay)
            else:
                return

    async def run(self) -> None:
        """Resync once when the watches have begun, and then at regular intervals until cancelled.

        A watch does not tell of what was deleted between the first list and its own; the operator may have done so.
        """
        delay = min(WATCHES_BEGIN_SECONDS, self._seconds)
        while True:
            await asyncio.sleep(delay)
            delay = self._seconds
            try:
                await self._list()
            except OperatorError as error:
                log.warning("the resync failed; retrying in %.0f s: %s", delay, error)
            for uid in list(self._cache.runs):
                self._loop.wake(uid)

    async def _list(self) -> None:
        for kind in WATCHED_CHILDREN:
            newest = self._cache.newest_child_version()
            found = await self._list_kind(kind, label=names.RUN_UID)
            self._cache.replace_children(kind, found, before=newest)
        claims = await self._list_claims()  # before the runs: a claim without one has lost it
        known = set(self._cache.runs)  # a run that a watch adds during the list is not in it, and stays
        runs = await self._list_kind(KIND)
        for uid in known - {run["metadata"]["uid"] for run in runs}:
            self._loop.remove(uid)
        for run in runs:
            self._cache.put_run(run)
        self._listed_at = self._clock()
        await self._orphans.report(claims, {run["metadata"]["uid"] for run in runs})

    async def _list_claims(self) -> list[Body]:
        """Every claim of ours; none where this operator may not list them, which nothing else depends on."""
        try:
            return await self._list_kind("PersistentVolumeClaim", label=names.RUN_UID)
        except ApiError as error:
            if not error.refused:
                raise
            log.warning("orphaned claims are not found: %s", error)
            return []

    async def _list_kind(self, kind: str, *, label: str | None = None) -> list[Body]:
        return [
            item
            for namespace in self._namespaces
            for item in await self._cluster.list(kind, namespace=namespace, label=label)
        ]
