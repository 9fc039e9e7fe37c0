"""The lease: of several operators only the one that holds it acts on runs.

``kubernetes.aio.leaderelection`` would be the library for this. It never gives a lease back, lets a request take as
long as it likes, and ends with a dead connection while its leader goes on; what is needed is small.

The holder renews the lease after a third of its duration. Two thirds after the last renewal it stops writing
(``Cluster`` asks ``is_held`` before every write), so that the last third is nobody's, and goes on when a renewal
succeeds after all: then nobody has held it meanwhile. Another operator takes it when it has not been renewed for all of
its duration, by its own clock: the clocks of two machines are never compared.
"""

import asyncio
import logging
import socket
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from dporun_operator import names
from dporun_operator.cluster import Cluster
from dporun_operator.errors import ApiError
from dporun_operator.run import Manifest

log = logging.getLogger(__name__)

LONGEST_RETRY_SECONDS = 2.0
"""An operator that stands by looks at least this often, so that a lease that was given back is soon taken."""


@dataclass(frozen=True)
class Seen:
    """A Lease as it was seen."""

    spec: Mapping[str, Any]
    since: float
    """When it was first seen so, by the observer's own clock, in seconds."""

    @property
    def holder(self) -> str:
        """Identity of the operator that holds it; empty when none does."""
        return self.spec.get("holderIdentity") or ""


def look(spec: Mapping[str, Any], before: Seen | None, now: float) -> Seen:
    """What is seen ``now``: something new, or still the same as ``before``."""
    return before if before is not None and before.spec == spec else Seen(spec, now)


def may_take(seen: Seen, identity: str, now: float) -> bool:
    """Whether no other one holds the lease, or its holder has not renewed it for all of its duration."""
    return seen.holder in {"", identity} or now - seen.since >= seen.spec.get("leaseDurationSeconds", 0)


def may_act(renewed_at: float | None, now: float, *, seconds: float) -> bool:
    """Whether a lease of ``seconds`` that was renewed by a request sent at ``renewed_at`` is still to be relied on."""
    return renewed_at is not None and now - renewed_at < seconds * 2 / 3


def held_by(identity: str, spec: Mapping[str, Any], *, seconds: int, at: datetime) -> dict[str, Any]:
    """The spec of a Lease that was ``spec`` when ``identity`` takes or renews it."""
    time_text = at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    changes = spec.get("holderIdentity") != identity
    return {
        "holderIdentity": identity,
        "leaseDurationSeconds": seconds,
        "acquireTime": time_text if changes else spec.get("acquireTime"),
        "renewTime": time_text,
        "leaseTransitions": spec.get("leaseTransitions", 0) + (1 if changes and spec else 0),
    }


class Lease:
    """One Lease, and whether this process holds it.

    Attributes:
        lost: whether another operator has taken the lease: this process must end.

    Args:
        cluster: asked without regard to the lease itself.
        namespace: of the Lease.
        seconds: its duration.
        on_lost: called once when another operator has taken the lease.
        clock: seconds, always growing.

    """

    def __init__(
        self,
        cluster: Cluster,
        *,
        namespace: str,
        seconds: int,
        on_lost: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ):
        self.lost = False
        self._cluster = cluster
        self._namespace = namespace
        self._seconds = seconds
        self._on_lost = on_lost
        self._clock = clock
        self._identity = f"{socket.gethostname()}_{uuid.uuid4()}"
        self._renew_seconds = seconds / 3
        self._retry_seconds = min(seconds / 10, LONGEST_RETRY_SECONDS)
        self._manifest: Manifest | None = None
        self._renewed_at: float | None = None
        self._seen: Seen | None = None
        self._problem: str | None = None

    @property
    def name(self) -> str:
        """Namespace and name of the Lease, for people."""
        return f"{self._namespace}/{names.OPERATOR}"

    @property
    def problem(self) -> str | None:
        """Why the lease could not be read or written last time; None when it could."""
        return self._problem

    @property
    def waits_for(self) -> str | None:
        """Why this operator stands by; None once it has had the lease."""
        if self._renewed_at is not None:
            return None
        return self._problem or f"{self._seen.holder if self._seen else 'nobody'} holds it"

    def is_held(self) -> bool:
        """Whether this process may act now."""
        return may_act(self._renewed_at, self._clock(), seconds=self._seconds)

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Wait for the lease, keep it while the block runs, and give it back."""
        await self._acquire()
        keeping = asyncio.create_task(self._keep(), name="lease")
        try:
            yield
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)
            await self._release()

    async def _acquire(self) -> None:
        while not await self._try(self._take):  # noqa: ASYNC110  what is waited for happens elsewhere
            await asyncio.sleep(self._retry_seconds)
        log.info("holding lease %s as %s", self.name, self._identity)

    async def _keep(self) -> None:
        """Renew the lease until cancelled or until it is another's."""
        while True:
            await asyncio.sleep(self._retry_seconds if self._problem else self._renew_seconds)
            if not await self._try(self._renew) and self._problem is None:
                self._renewed_at = None
                log.error("lease %s has been taken by another operator; this one ends", self.name)
                self.lost = True
                self._on_lost()
                return

    async def _try(self, step: Callable[[], Any]) -> bool:
        """Take a step in time; an error, whatever it is, makes it False, with ``problem`` set."""
        try:
            async with asyncio.timeout(self._renew_seconds):
                done = bool(await step())
        except Exception as error:  # noqa: BLE001  a lease that is not renewed is all that may follow
            if self._problem is None:
                log.warning("cannot use lease %s, trying again: %r", self.name, error)
            self._problem = str(error) or "no answer in time"
            return False
        if self._problem is not None:
            log.info("lease %s can be used again", self.name)
        self._problem = None
        return done

    async def _take(self) -> bool:
        """Take the lease if that may be done."""
        found = await self._cluster.get("Lease", self._namespace, names.OPERATOR)
        before = self._seen
        self._seen = look(_spec(found), before, self._clock())
        if not may_take(self._seen, self._identity, self._clock()):
            if before is None or before.holder != self._seen.holder:
                log.info("standing by: %s holds lease %s", self._seen.holder, self.name)
            return False
        try:
            await self._hold(found)
        except ApiError as error:
            if error.conflict:  # another one was quicker
                return False
            raise
        return True

    async def _renew(self) -> bool:
        """Renew the lease; False when it is another's."""
        try:
            await self._hold(self._manifest)
        except ApiError as error:
            if not (error.conflict or error.not_found):
                raise
            found = await self._cluster.get("Lease", self._namespace, names.OPERATOR)
            if found is not None and _spec(found).get("holderIdentity") != self._identity:
                return False
            await self._hold(found)  # only the answer to the last renewal was lost
        return True

    async def _hold(self, found: Manifest | None) -> None:
        began = self._clock()
        spec = held_by(self._identity, _spec(found), seconds=self._seconds, at=datetime.now(UTC))
        await self._write(found, spec)
        self._renewed_at = began

    async def _write(self, found: Manifest | None, spec: dict[str, Any]) -> None:
        """Write the Lease over the version that was ``found``; another version is a conflict."""
        version = {"resourceVersion": found["metadata"]["resourceVersion"]} if found else {}
        manifest = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"namespace": self._namespace, "name": names.OPERATOR, **version},
            "spec": spec,
        }
        self._manifest = await (self._cluster.apply(manifest) if found else self._cluster.post(manifest))

    async def _release(self) -> None:
        """Give the lease back, so that another operator need not wait for its end."""
        if self._renewed_at is not None:
            self._renewed_at = None  # from here on nothing is written, whatever is still under way
            await self._try(self._give_back)

    async def _give_back(self) -> bool:
        await self._write(self._manifest, {**_spec(self._manifest), "holderIdentity": ""})
        log.info("lease %s given back", self.name)
        return True


def _spec(lease: Manifest | None) -> dict[str, Any]:
    return (lease or {}).get("spec") or {}
