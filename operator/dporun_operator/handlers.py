"""The watches, by kopf: they keep what was seen last and wake the run's task. No decision is made here.

None of kopf's state-changing handlers is used, so kopf puts neither finalizers nor annotations on anything: a run is
held by our own finalizer alone, and a restart in the middle of its deletion changes nothing.
"""

import asyncio
import itertools
import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import kopf
from aiohttp import web

from dporun_api.v1alpha1 import GROUP, KIND, PLURAL, VERSION
from dporun_operator import names
from dporun_operator.cluster import Cluster
from dporun_operator.errors import ApiError
from dporun_operator.loop import Loop, Seen
from dporun_operator.metrics import Metrics
from dporun_operator.progress import DirectProgress, ProxiedProgress
from dporun_operator.reconcile import Reconciler, phases
from dporun_operator.settings import Settings

log = logging.getLogger(__name__)

WATCHED_CHILDREN = ("Job", "Pod")


class CappedBackoffs(Iterable[float]):
    """1, 2, 4, 8, 16, 30, 30, … seconds: an API server that is away for an hour does not end the operator."""

    def __iter__(self) -> Iterator[float]:
        """Begin anew."""
        return itertools.chain((1.0, 2.0, 4.0, 8.0, 16.0), itertools.repeat(30.0))


class Operator:
    """Everything that lives as long as the process."""

    def __init__(self, settings: Settings):
        self.settings = settings
        self.seen = Seen()
        self.metrics = Metrics()
        self.cluster = Cluster()
        self._resources = AsyncExitStack()
        self._resynced_at = time.monotonic()

    async def start(self, settings: kopf.OperatorSettings, **_: Any) -> None:
        """Connect, look at everything once, then let the watches begin."""
        configure(settings)
        await self._resources.enter_async_context(self.cluster)
        session = await self._resources.enter_async_context(aiohttp.ClientSession())
        direct = self.settings.progress_via == "pod"
        ask = DirectProgress(session) if direct else ProxiedProgress(self.cluster)
        self.reconciler = Reconciler(self.cluster, self.seen, ask, self.settings, self.metrics)
        self.loop = Loop(self.reconciler, self.seen, resync_seconds=self.settings.resync_seconds)
        if self.settings.port:
            await self._serve()
        await self._list_until_it_works()
        self._resync = asyncio.create_task(self._resync_for_ever(), name="resync")

    async def stop(self, **_: Any) -> None:
        """Let go of everything; runs stay as they are."""
        if hasattr(self, "_resync"):
            self._resync.cancel()
            await self.loop.stop()
        await self._resources.aclose()

    async def on_run(self, type: str | None, body: kopf.Body, uid: str, **_: Any) -> None:  # noqa: A002  kopf's name
        """A run was seen, has changed or is gone."""
        if type == "DELETED":
            self._gone(uid)
        else:
            self.seen.run(_plain(body))
            self.loop.wake(uid)

    async def on_child(self, type: str | None, body: kopf.Body, **_: Any) -> None:  # noqa: A002  kopf's name
        """A Job or Pod of a run was seen, has changed or is gone."""
        child = _plain(body)
        if type == "DELETED":
            self.seen.drop(child)
        else:
            self.seen.child(child)
        self.loop.wake(child["metadata"]["labels"][names.RUN_UID])

    def _gone(self, uid: str) -> None:
        self.loop.drop(uid)
        self.reconciler.forget(uid)

    async def _list_until_it_works(self) -> None:
        """Wait until the CustomResourceDefinition is served, as kopf looks for it only once."""
        for delay in CappedBackoffs():
            try:
                await self._list()
            except ApiError as error:
                log.warning("cannot list %s; trying again in %.0f s: %s", PLURAL, delay, error)
                await asyncio.sleep(delay)
            else:
                return

    async def _list(self) -> None:
        """Look at everything: the watches do not tell what went away while they were interrupted."""
        for kind in WATCHED_CHILDREN:
            newest = self.seen.newest_version()
            found = [
                child
                for namespace in self.settings.namespaces or (None,)
                for child in await self.cluster.list(kind, namespace=namespace, label=names.RUN_UID)
            ]
            self.seen.relist(kind, found, before=newest)
        known = set(self.seen.runs)
        runs = [
            run
            for namespace in self.settings.namespaces or (None,)
            for run in await self.cluster.list(KIND, namespace=namespace)
        ]
        for uid in known - {run["metadata"]["uid"] for run in runs}:
            self._gone(uid)
        for run in runs:
            self.seen.run(run)
        self._resynced_at = time.monotonic()

    async def _resync_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self.settings.resync_seconds)
            try:
                await self._list()
            except ApiError as error:
                log.warning("the resync failed and is tried again: %s", error)
            for uid in list(self.seen.runs):
                self.loop.wake(uid)

    async def _serve(self) -> None:
        app = web.Application()
        app.add_routes([web.get("/healthz", self._health), web.get("/metrics", self._metrics)])
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        self._resources.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, None, self.settings.port).start()

    async def _health(self, _: web.Request) -> web.Response:
        age = time.monotonic() - self._resynced_at
        alive = age < 3 * self.settings.resync_seconds
        text = f"last full look at the cluster {age:.0f} s ago\n"
        return web.Response(text=text, status=200 if alive else 503)

    async def _metrics(self, _: web.Request) -> web.Response:
        text = self.metrics.render(phases(self.seen), requests=self.cluster.requests)
        return web.Response(text=text, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})


def configure(settings: kopf.OperatorSettings) -> None:
    """Settings of kopf: only watch, never give up, notice a dead connection."""
    settings.posting.enabled = False
    settings.networking.connect_timeout = 30
    settings.networking.error_backoffs = CappedBackoffs()
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 310
    settings.watching.connect_timeout = 30
    settings.watching.chunk_size = 500
    settings.watching.label_selectors["batch", "v1", "jobs"] = names.RUN_UID
    settings.watching.label_selectors["", "v1", "pods"] = names.RUN_UID
    settings.scanning.disabled = True
    settings.process.ultimate_exiting_timeout = 20
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)  # it tells of every event that was handled


def serve(settings: Settings) -> None:
    """Run the operator until it is told to stop."""
    operator = Operator(settings)
    labels = {names.RUN_UID: kopf.PRESENT}
    kopf.on.startup()(operator.start)
    kopf.on.cleanup()(operator.stop)
    kopf.on.event(GROUP, VERSION, PLURAL)(operator.on_run)
    kopf.on.event("batch", "v1", "jobs", labels=labels)(operator.on_child)
    kopf.on.event("", "v1", "pods", labels=labels)(operator.on_child)
    kopf.run(standalone=True, clusterwide=not settings.namespaces, namespaces=settings.namespaces)


def _plain(body: kopf.Body) -> dict[str, Any]:
    return dict(body)
