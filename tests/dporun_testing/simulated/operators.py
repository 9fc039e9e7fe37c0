"""The operator as a process: the real loop, reconciler, resync and cache; its watches may lag or break; it may die."""

import asyncio
from collections.abc import Callable
from contextlib import nullcontext, suppress
from typing import Any, cast

from dporun_operator import names
from dporun_operator.cache import WatchCache
from dporun_operator.cluster import Cluster
from dporun_operator.events import Events
from dporun_operator.lease import Lease
from dporun_operator.loop import Loop
from dporun_operator.metrics import Metrics
from dporun_operator.orphans import Orphans
from dporun_operator.progress import Ask
from dporun_operator.reconcile import Reconciler
from dporun_operator.resync import Resync
from dporun_operator.settings import Settings
from dporun_operator.watches import Watches
from dporun_testing.builders import IMAGE
from dporun_testing.simulated import virtual_time
from dporun_testing.simulated.api_server import ApiServer, Body
from dporun_testing.simulated.client import Client, Request
from dporun_testing.simulated.faults import Wire

RESYNC_SECONDS = 600.0
SETTINGS = Settings(trainer_image=IMAGE, progress_seconds=15, resync_seconds=RESYNC_SECONDS)
METRICS = Metrics(dict, dict)
LEASE_SECONDS = 60
WATCHED = ("DPORun", "Job", "Pod")


class OperatorProcess:
    """One process of the operator, with a memory of its own.

    Args:
        server: to work on.
        wire: carries its requests.
        ask: the progress of a pod.
        lag: seconds after which a watch tells what has happened.
        alone: whether no other operator is ever there, so that no Lease is needed.
        on_death: called when it has been killed.

    """

    def __init__(
        self, server: ApiServer, wire: Wire, ask: Ask, *, lag: float, alone: bool, on_death: Callable[[], None]
    ):
        self._server = server
        self._lag = lag
        self._on_death = on_death
        self._dead = False
        time = asyncio.get_running_loop().time

        async def carry(request: Request, act: Callable[[], Any]) -> Any:
            if self._dead:
                await asyncio.Event().wait()
            return await wire.carry(request, act, self.kill)

        unguarded, cache = Cluster(cast(Any, Client(server, carry))), WatchCache()
        self._lease = Lease(unguarded, namespace="default", seconds=LEASE_SECONDS, on_lost=self.kill, clock=time)
        self._holding = nullcontext() if alone else self._lease.held()
        cluster = unguarded if alone else unguarded.guarded_by(self._lease.is_held)
        reconciler = Reconciler(cluster, cache, ask, SETTINGS, METRICS, clock=virtual_time.now, monotonic=time)
        self._loop = Loop(reconciler, cache, resync_seconds=RESYNC_SECONDS, jitter=lambda: 1.0)
        self.orphans = Orphans(cluster, Events(cluster, virtual_time.now))
        self._resync = Resync(
            cluster, cache, self._loop, self.orphans, namespaces=(), seconds=RESYNC_SECONDS, clock=time
        )
        self._watches = Watches(cache, self._loop, namespaces=())
        self._queues: dict[str, asyncio.Queue[tuple[str | None, Body]]] = {kind: asyncio.Queue() for kind in WATCHED}
        self._broken = False
        self._tasks = [asyncio.create_task(self._run())]

    async def _run(self) -> None:
        async with self._holding:
            await self._resync.list_until_served()
            self._watch()
            self._tasks += [asyncio.create_task(self._deliver(kind)) for kind in WATCHED]
            await self._resync.run()

    def _watch(self) -> None:
        """Begin all watches: each tells first what is there, then what happens."""
        for body in list(self._server.objects.values()):
            self._hear(None, body)
        self._server.listeners.append(self._hear)

    def break_watches(self) -> None:
        """From now on nothing is heard, and nobody notices."""
        with suppress(ValueError):
            self._server.listeners.remove(self._hear)
            self._broken = True

    def mend_watches(self) -> None:
        """The watches begin anew: what was deleted meanwhile they do not tell."""
        if self._broken and not self._dead:
            self._broken = False
            self._watch()

    def _hear(self, event: str | None, body: Body) -> None:
        if body["kind"] == "DPORun" or (
            body["kind"] in WATCHED and names.RUN_UID in body["metadata"].get("labels", {})
        ):
            self._queues[body["kind"]].put_nowait((event, body))

    async def _deliver(self, kind: str) -> None:
        while True:
            event, body = await self._queues[kind].get()
            if self._lag:
                await asyncio.sleep(self._lag)
            if kind == "DPORun":
                await self._watches.on_run(cast(Any, event), cast(Any, body), body["metadata"]["uid"])
            else:
                await self._watches.on_child(event, cast(Any, body))

    def kill(self) -> None:
        """SIGKILL: nothing that it would do comes to pass any more."""
        if self._dead:
            return
        self._dead = True
        self.break_watches()
        for task in self._tasks:
            task.cancel()
        self._ending = asyncio.create_task(self._loop.stop())
        self._on_death()
