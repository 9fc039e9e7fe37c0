"""The operator's own HTTP server: /healthz for the kubelet and /metrics for Prometheus."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.aiohttp import make_aiohttp_handler

from dporun_operator.lease import Lease
from dporun_operator.resync import Resync


class HealthServer:
    """Serves on ``port``, on all addresses; port 0 means no server at all.

    Args:
        resync: the operator is healthy while this is not overdue.
        lease: an operator that stands by for its holder is healthy, too.
        metrics: served in the format that the client accepts.

    """

    def __init__(self, resync: Resync, lease: Lease, metrics: CollectorRegistry, *, port: int):
        self._resync = resync
        self._lease = lease
        self._metrics = metrics
        self._port = port

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Serve while the block runs.

        Raises:
            OSError: the port is taken.

        """
        if not self._port:
            yield
            return
        runner = web.AppRunner(self.application(), access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, None, self._port).start()
            yield
        finally:
            await runner.cleanup()

    def application(self) -> web.Application:
        """The two routes."""
        app = web.Application()
        app.add_routes([web.get("/healthz", self._healthz), web.get("/metrics", make_aiohttp_handler(self._metrics))])
        return app

    async def _healthz(self, _: web.Request) -> web.Response:
        if (waits_for := self._lease.waits_for) is not None:
            text = f"standing by for lease {self._lease.name}: {waits_for}\n"
            return web.Response(text=text, status=503 if self._lease.problem else 200)
        text = f"last full list of the cluster {self._resync.age:.0f} s ago\n"
        return web.Response(text=text, status=503 if self._resync.overdue else 200)
