"""Brings one run forward: observe → plan → apply → status, in this order, whatever has happened before."""

import asyncio
import contextlib
import hashlib
import json
import logging
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from dporun_api.text import timestamp
from dporun_api.v1alpha1 import API_VERSION, KIND
from dporun_api.v1alpha1.status import ArchiveState, DPORunStatus
from dporun_operator import names
from dporun_operator.cache import Body, WatchCache
from dporun_operator.cluster import Cluster
from dporun_operator.errors import ApiError, InvalidRunError, NameTakenError
from dporun_operator.metrics import Metrics
from dporun_operator.plan import refusal
from dporun_operator.plan.actions import Delete, Event, Plan
from dporun_operator.plan.decide import decide
from dporun_operator.plan.observed import Observed
from dporun_operator.plan.run import Manifest, Run
from dporun_operator.progress import Ask
from dporun_operator.settings import Settings

log = logging.getLogger(__name__)

CONCURRENCY = 32
"""Runs that are reconciled at the same time, so that a full resync does not flood the API server."""

LOG_TAIL_CHARACTERS = 2048


def utc_now() -> datetime:
    """The time."""
    return datetime.now(UTC)


class Reconciler:
    """Reconciles runs; one call is one look at one run."""

    def __init__(
        self,
        cluster: Cluster,
        cache: WatchCache,
        ask: Ask,
        settings: Settings,
        metrics: Metrics,
        *,
        clock: Callable[[], datetime] = utc_now,
    ):
        self._cluster = cluster
        self._cache = cache
        self._ask = ask
        self._settings = settings
        self._metrics = metrics
        self._clock = clock
        self._turn = asyncio.Semaphore(CONCURRENCY)
        self._done: dict[str, dict[tuple[str, str], tuple[str, float]]] = {}

    async def __call__(self, body: Body) -> float | None:
        """Reconcile a run as it was last seen; returns after how many seconds to look again."""
        async with self._turn:
            begin = time.monotonic()
            failed = True
            try:
                delay = await self._reconcile(body)
                failed = False
                return delay
            finally:
                self._metrics.observe(time.monotonic() - begin, failed=failed)

    def forget(self, uid: str) -> None:
        """Drop what was applied for a run that no longer exists."""
        self._done.pop(uid, None)

    async def _reconcile(self, body: Body) -> float | None:
        metadata = body["metadata"]
        held = names.FINALIZER in metadata.get("finalizers", ())
        if "deletionTimestamp" in metadata and not held:
            return None
        if not held:
            body = await self._hold(body)
        try:
            run = Run.parse(body)
        except InvalidRunError as error:
            return await self._reject(body, error)
        plan = decide(run, await self._observe(run), self._settings, self._clock())
        try:
            await self._act(run, plan)
        except ApiError as error:
            if error.refused:
                await self._write(run, refusal.status(run, error.message, self._clock()), ())
            raise
        except NameTakenError as error:
            await self._write(run, refusal.status(run, str(error), self._clock()), ())
            raise
        resource_version = await self._write(run, await self._with_log(run, plan.status), plan.events)
        if plan.release:
            await self._release(run.namespace, run.name, run.finalizers, resource_version)
        elif plan.delete_run:
            await self._cluster.delete(KIND, run.namespace, run.name, uid=run.uid)
        return plan.requeue_seconds

    async def _hold(self, body: Body) -> Body:
        """Put our finalizer on, before anything else exists that would have to be cleaned up."""
        metadata = body["metadata"]
        finalizers = [*metadata.get("finalizers", ()), names.FINALIZER]
        held = await self._cluster.set_finalizers(
            metadata["namespace"], metadata["name"], finalizers, resource_version=metadata["resourceVersion"]
        )
        self._cache.put_run(held)
        return held

    async def _release(self, namespace: str, name: str, finalizers: tuple[str, ...], resource_version: str) -> None:
        rest = [finalizer for finalizer in finalizers if finalizer != names.FINALIZER]
        await self._cluster.set_finalizers(namespace, name, rest, resource_version=resource_version)

    async def _reject(self, body: Body, error: InvalidRunError) -> float | None:
        """A run that cannot be read fails, or may go when deleted.

        One that has trained is left as it is, for the operator that could read it: this one may just be older.
        """
        metadata = body["metadata"]
        if (body.get("status") or {}).get("attempt"):
            raise error
        if "deletionTimestamp" in metadata:
            finalizers = tuple(metadata.get("finalizers", ()))
            await self._release(metadata["namespace"], metadata["name"], finalizers, metadata["resourceVersion"])
            return None
        status = refusal.unreadable(str(error), metadata.get("generation", 1), self._clock())
        if (body.get("status") or {}).get("message") != status.message:
            await self._apply_status(metadata, status)
        return None

    async def _observe(self, run: Run) -> Observed:
        observed = Observed.of(self._cache.children_of(run.uid, run.namespace), source_uri=self._source(run))
        pod = observed.training_pod()
        if pod is None or run.deleting:
            return observed
        progress = await self._ask(run.namespace, pod.name, pod.ip)
        return replace(observed, progress=progress)

    def _source(self, run: Run) -> str | None:
        """Archive of the run to start from."""
        source = run.spec.checkpoints.resume_from
        if source is None or source.run is None:
            return None
        found = self._cache.find_run(run.namespace, source.run)
        archive = ((found or {}).get("status") or {}).get("archive") or {}
        return archive.get("uri") if archive.get("state") == ArchiveState.SUCCEEDED else None

    async def _act(self, run: Run, plan: Plan) -> None:
        for manifest in plan.apply:
            key, digest = (manifest["kind"], manifest["metadata"]["name"]), _digest(manifest)
            if not self._is_done(run, key, digest):
                await self._have(run, manifest)
                self._mark(run, key, digest)
        for job in plan.create:
            self._cache.put_child(await self._cluster.create(job))
            self._done.get(run.uid, {}).pop(("Job", job["metadata"]["name"]), None)
        for target in plan.delete:
            key = (target.kind, target.name)
            if plan.release or not self._is_done(run, key, "deleted"):
                await self._delete(run, target)
                self._mark(run, key, "deleted")

    async def _have(self, run: Run, manifest: Manifest) -> None:
        """Apply a child, unless its name is taken. A claim is made only once: who enlarges it later means it."""
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        found = await self._cluster.uid(kind, run.namespace, name, run_uid=run.uid)
        if found is None or kind != "PersistentVolumeClaim":
            await self._cluster.apply(manifest)

    async def _delete(self, run: Run, target: Delete) -> None:
        """Delete a child; what is not of this run stays, whatever its name."""
        if target.kind == "Job":  # known by its label
            await self._cluster.delete(target.kind, run.namespace, target.name)
            return
        with contextlib.suppress(NameTakenError):
            uid = await self._cluster.uid(target.kind, run.namespace, target.name, run_uid=run.uid)
            if uid is not None:
                await self._cluster.delete(target.kind, run.namespace, target.name, uid=uid)

    def _is_done(self, run: Run, key: tuple[str, str], digest: str) -> bool:
        """Whether just this has been done lately; after a while it is done again, to undo what others did."""
        known, moment = self._done.get(run.uid, {}).get(key, ("", 0.0))
        return known == digest and time.monotonic() - moment < self._settings.resync_seconds

    def _mark(self, run: Run, key: tuple[str, str], digest: str) -> None:
        self._done.setdefault(run.uid, {})[key] = (digest, time.monotonic())

    async def _with_log(self, run: Run, status: DPORunStatus) -> DPORunStatus:
        """Add the last lines of the failed pod's log to a failure that has none."""
        failure, before = status.failure, run.status.failure
        if failure is None or failure.log_tail is not None or failure.pod is None:
            return status
        if before is not None and (before.pod, before.reason) == (failure.pod, failure.reason):
            tail = before.log_tail or ""
        else:
            try:
                tail = await self._cluster.log_tail(
                    run.namespace, failure.pod, container=names.MAIN_CONTAINER, limit=LOG_TAIL_CHARACTERS
                )
            except ApiError as error:
                log.info("%s/%s: no log of pod %s: %s", run.namespace, run.name, failure.pod, error)
                tail = ""
        return status.model_copy(update={"failure": failure.model_copy(update={"log_tail": tail})})

    async def _write(self, run: Run, status: DPORunStatus, events: tuple[Event, ...]) -> str:
        """Write the status if it has changed, then tell of it; returns the run's newest resource version."""
        if status == run.status:
            return run.resource_version
        if status.phase != run.status.phase:
            log.info("%s/%s: %s: %s", run.namespace, run.name, status.phase, status.message)
        metadata = {"namespace": run.namespace, "name": run.name, "uid": run.uid}
        written = await self._apply_status(metadata, status)
        for event in events:
            await self._tell(run, event)
        return str(written["metadata"]["resourceVersion"])

    async def _apply_status(self, metadata: Manifest, status: DPORunStatus) -> Manifest:
        manifest = {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": {key: metadata[key] for key in ("namespace", "name", "uid")},
            "status": status.model_dump(mode="json", by_alias=True, exclude_none=True),
        }
        written = await self._cluster.apply(manifest, subresource="status")
        self._metrics.status_writes += 1
        self._cache.put_run(written)
        return written

    async def _tell(self, run: Run, event: Event) -> None:
        now = timestamp(self._clock())
        manifest: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{run.name[:200]}.{uuid.uuid4().hex[:16]}", "namespace": run.namespace},
            "involvedObject": {
                "apiVersion": API_VERSION,
                "kind": KIND,
                "namespace": run.namespace,
                "name": run.name,
                "uid": run.uid,
            },
            "type": event.type,
            "reason": event.reason,
            "message": event.message,
            "source": {"component": names.OPERATOR},
            "reportingComponent": names.OPERATOR,
            "reportingInstance": names.OPERATOR,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        try:
            await self._cluster.post_event(manifest)
        except ApiError as error:
            log.info("%s/%s: event %s is lost: %s", run.namespace, run.name, event.reason, error)


def _digest(manifest: Manifest) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
