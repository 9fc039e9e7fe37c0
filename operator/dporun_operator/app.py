"""The operator as a process: every object is built in one place, in the order of what needs what, and then run."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp

from dporun_operator.cache import WatchCache
from dporun_operator.cluster import Cluster
from dporun_operator.health import HealthServer
from dporun_operator.loop import Loop
from dporun_operator.metrics import Metrics
from dporun_operator.progress import DirectProgress, ProxiedProgress
from dporun_operator.reconcile import Reconciler
from dporun_operator.resync import Resync
from dporun_operator.settings import Settings
from dporun_operator.watches import Watches


class Operator:
    """Everything that lives as long as the process."""

    def __init__(self, settings: Settings, cluster: Cluster, session: aiohttp.ClientSession):
        namespaces, seconds = settings.namespaces, settings.resync_seconds
        ask = DirectProgress(session) if settings.progress_via == "pod" else ProxiedProgress(cluster)
        self._cache = WatchCache()
        self._metrics = Metrics(self._cache.count_by_phase, lambda: cluster.requests)
        self._reconciler = Reconciler(cluster, self._cache, ask, settings, self._metrics)
        self._loop = Loop(self._reconciler, self._cache, resync_seconds=seconds)
        self._resync = Resync(cluster, self._cache, self._loop, namespaces=namespaces, seconds=seconds)
        self._watches = Watches(self._cache, self._loop, namespaces=namespaces)
        self._health = HealthServer(self._resync, self._metrics.registry, port=settings.port)

    async def run(self) -> None:
        """Run until SIGTERM or SIGINT; runs stay as they are."""
        await self._watches.run(self._lifespan())

    @asynccontextmanager
    async def _lifespan(self) -> AsyncIterator[None]:
        """Around the watches: serve, list everything once before they begin, and resync while they last."""
        async with self._health.serving():
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
