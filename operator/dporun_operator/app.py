"""The operator as a process: every object is built in one place, in the order of what needs what, and then run."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp

from dporun_operator.cache import WatchCache
from dporun_operator.cluster import Cluster
from dporun_operator.errors import NotHolderError
from dporun_operator.events import Events
from dporun_operator.health import HealthServer
from dporun_operator.lease import Lease
from dporun_operator.loop import Loop
from dporun_operator.metrics import Metrics
from dporun_operator.orphans import Orphans
from dporun_operator.progress import DirectProgress, ProxiedProgress
from dporun_operator.reconcile import Reconciler, utc_now
from dporun_operator.resync import Resync
from dporun_operator.settings import Settings
from dporun_operator.watches import Watches


class Operator:
    """Everything that lives as long as the process."""

    def __init__(self, settings: Settings, unguarded: Cluster, session: aiohttp.ClientSession):
        namespaces, seconds = settings.namespaces, settings.resync_seconds
        self._stop = asyncio.Event()
        self._lease = Lease(
            unguarded, namespace=settings.lease_namespace, seconds=settings.lease_seconds, on_lost=self._stop.set
        )
        cluster = unguarded.guarded_by(self._lease.is_held)
        ask = DirectProgress(session) if settings.progress_via == "pod" else ProxiedProgress(cluster)
        self._cache = WatchCache()
        self._orphans = Orphans(cluster, Events(cluster, utc_now))
        self._metrics = Metrics(
            runs_by_phase=self._cache.count_by_phase,
            api_requests=lambda: cluster.requests,
            lease_requests=lambda: unguarded.requests,
            lease_held=self._lease.is_held,
            orphaned_claims=lambda: self._orphans.count,
        )
        self._reconciler = Reconciler(cluster, self._cache, ask, settings, self._metrics)
        self._loop = Loop(self._reconciler, self._cache, resync_seconds=seconds)
        self._resync = Resync(cluster, self._cache, self._loop, self._orphans, namespaces=namespaces, seconds=seconds)
        self._watches = Watches(self._cache, self._loop, namespaces=namespaces)
        self._health = HealthServer(self._resync, self._lease, self._metrics.registry, port=settings.port)

    async def run(self) -> None:
        """Run until SIGTERM or SIGINT; runs stay as they are.

        Raises:
            NotHolderError: another operator has taken the lease.

        """
        await self._watches.run(self._lifespan(), self._stop)
        if self._lease.lost:
            raise NotHolderError(f"another operator has taken lease {self._lease.name}")

    @asynccontextmanager
    async def _lifespan(self) -> AsyncIterator[None]:
        """Around the watches: serve, wait for the lease, list everything once, and resync while they last.

        The lease is given back when nothing of this operator acts any more.
        """
        async with self._health.serving(), self._lease.held():
            await self._resync.list_until_served()
            resync = asyncio.create_task(self._resync.run(), name="resync")
            try:
                yield
            finally:
                resync.cancel()
                await self._loop.stop()


def run(settings: Settings) -> None:
    """Run the operator until SIGTERM or SIGINT."""
    asyncio.run(_run(settings))


async def _run(settings: Settings) -> None:
    async with Cluster.connect() as cluster, aiohttp.ClientSession() as session:
        await Operator(settings, cluster, session).run()
