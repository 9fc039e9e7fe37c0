"""The operator's own HTTP server: /healthz for the kubelet and /metrics for Prometheus."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from dporun_operator.resync import Resync


class HealthServer:
    """Serves on ``port``, on all addresses; port 0 means no server at all.

    Args:
        resync: the operator is healthy while this is not overdue.
        render_metrics: writes all metrics in the text format of Prometheus.

    """

    def __init__(self, resync: Resync, render_metrics: Callable[[], str], *, port: int):
        self._resync = resync
        self._render_metrics = render_metrics
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
        app = web.Application()
        app.add_routes([web.get("/healthz", self._healthz), web.get("/metrics", self._metrics)])
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, None, self._port).start()
            yield
        finally:
            await runner.cleanup()

    async def _healthz(self, _: web.Request) -> web.Response:
        text = f"last full list of the cluster {self._resync.age:.0f} s ago\n"
        return web.Response(text=text, status=503 if self._resync.overdue else 200)

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(
            text=self._render_metrics(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        )
