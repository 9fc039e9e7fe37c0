"""The watches. kopf is used as a stream of watch events only: two handlers fill the cache and wake the run's task.

None of kopf's handlers that carry state is used: no ``on.create``, ``on.update``, ``on.delete``, daemon or timer. Their
finalizer is no guarantee (kopf drops it on a permanent error, when retries are exhausted, on a timeout, and when a
filter no longer matches), a daemon does not come back when the operator restarts during a deletion, and their progress
is kept in annotations of the user's object. A run is protected by our own finalizer alone, and ``loop`` retries.

What kopf does for us: it watches every namespace or some, reconnects, logs in again when a token expires, and turns a
signal into an orderly end.
"""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any

import kopf

from dporun_api.v1alpha1 import GROUP, PLURAL, VERSION
from dporun_operator import names
from dporun_operator.cache import WatchCache
from dporun_operator.loop import Loop
from dporun_operator.resync import CappedBackoffs


class Watches:
    """Watches runs, and the Jobs and Pods that bear the label of one.

    Args:
        namespaces: to watch; the whole cluster when empty.

    """

    def __init__(self, cache: WatchCache, loop: Loop, *, namespaces: Sequence[str]):
        self._cache = cache
        self._loop = loop
        self._namespaces = namespaces

    async def run(self, lifespan: AbstractAsyncContextManager[None], stop: asyncio.Event) -> None:
        """Watch inside ``lifespan``, until SIGTERM or SIGINT, or until ``stop`` is set.

        The lifespan is entered and left by kopf: a signal interrupts the entering, too, and kopf would cancel any task
        that has not ended when the watches have.
        """
        async with AsyncExitStack() as stack:

            async def begin(**_: Any) -> None:
                await stack.enter_async_context(lifespan)

            async def end(**_: Any) -> None:
                await stack.aclose()
                stop.set()  # kopf waits for it, and would wait on

            await kopf.operator(
                registry=self._registry(begin, end),
                settings=_settings(),
                standalone=True,
                stop_flag=stop,
                clusterwide=not self._namespaces,
                namespaces=self._namespaces,
            )

    def _registry(self, begin: Any, end: Any) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()
        labels = {names.RUN_UID: kopf.PRESENT}
        kopf.on.login(id="login", registry=registry, errors=kopf.ErrorsMode.IGNORED)(kopf.login_via_client)
        kopf.on.startup(id="start", registry=registry, errors=kopf.ErrorsMode.PERMANENT)(begin)
        kopf.on.cleanup(id="stop", registry=registry, errors=kopf.ErrorsMode.PERMANENT)(end)
        kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)(self.on_run)
        kopf.on.event("batch", "v1", "jobs", labels=labels, registry=registry)(self.on_child)
        kopf.on.event("", "v1", "pods", labels=labels, registry=registry)(self.on_child)
        return registry

    async def on_run(self, type: str | None, body: kopf.Body, uid: str, **_: Any) -> None:  # noqa: A002  kopf's name
        """Take note of a run; ``type`` is None for one that was there when the watch began."""
        if type == "DELETED":
            self._loop.remove(uid)
        else:
            self._cache.put_run(dict(body))
            self._loop.wake(uid)
        for other in self._cache.waiting_for(body):
            self._loop.wake(other)

    async def on_child(self, type: str | None, body: kopf.Body, **_: Any) -> None:  # noqa: A002  kopf's name
        """Take note of a Job or Pod."""
        child = dict(body)
        if type == "DELETED":
            self._cache.remove_child(child)
        else:
            self._cache.put_child(child)
        self._loop.wake(child["metadata"]["labels"][names.RUN_UID])


def _settings() -> kopf.OperatorSettings:
    """Only watch, never give up, notice a dead connection."""
    settings = kopf.OperatorSettings()
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
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)  # at INFO it logs every event that was handled
    return settings
