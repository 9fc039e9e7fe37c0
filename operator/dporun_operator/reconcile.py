"""Brings one run forward, whatever has happened before.

One call is one look at one run:

1. hold     put our finalizer on, before anything exists that would have to be cleaned up
2. read     parse the resource; one that cannot be read says so, and is left to the operator that could read it
3. observe  its Jobs and Pods as the watches saw them last, the progress that its training pod reports, and why a Job
            gets no pod
4. decide   what to do and what to report (``lifecycle``: pure)
5. act      apply and create its children
6. write    the status, in one patch and only when it has changed (before the act, where an attempt begins); then the
            Events about it, and the objects that the run can do without
7. let go   delete children, and take our finalizer off or delete the run, when that was decided: what cannot be undone
            comes after the status that says why

An error at any point ends the look; the next one begins anew with what is there then.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime

from dporun_api.v1alpha1 import API_VERSION, KIND
from dporun_api.v1alpha1.status import DPORunStatus
from dporun_operator import names
from dporun_operator.applied import DELETED, AppliedCache, digest, has
from dporun_operator.cache import Body, WatchCache
from dporun_operator.cluster import Cluster
from dporun_operator.errors import ApiError, InvalidRunError, NameTakenError
from dporun_operator.events import Events
from dporun_operator.lifecycle import refusal
from dporun_operator.lifecycle.archive import remember_job
from dporun_operator.lifecycle.decide import decide
from dporun_operator.lifecycle.plan import Delete, Event, Plan, Unprotect
from dporun_operator.metrics import Metrics
from dporun_operator.names import Component
from dporun_operator.observed import Observed
from dporun_operator.optional_objects import OptionalObjects
from dporun_operator.pod_refusals import PodRefusals
from dporun_operator.progress import Ask
from dporun_operator.queue_message import queue_message
from dporun_operator.run import Manifest, Run, asks_for_release
from dporun_operator.settings import Settings
from dporun_operator.volumes import Volumes

log = logging.getLogger(__name__)

CONCURRENCY = 32
"""Runs that are reconciled at the same time, so that a full resync does not flood the API server."""

LOG_TAIL_CHARACTERS = 2048


def utc_now() -> datetime:
    """The time, with its zone."""
    return datetime.now(UTC)


class Reconciler:
    """Reconciles runs."""

    def __init__(
        self,
        cluster: Cluster,
        cache: WatchCache,
        ask: Ask,
        settings: Settings,
        metrics: Metrics,
        *,
        clock: Callable[[], datetime] = utc_now,
        monotonic: Callable[[], float] = time.monotonic,
    ):
        self._cluster = cluster
        self._cache = cache
        self._ask = ask
        self._pod_refusals = PodRefusals(cluster)
        self._optional = OptionalObjects(self._apply)
        self._settings = settings
        self._metrics = metrics
        self._clock = clock
        self._events = Events(cluster, clock)
        self._volumes = Volumes(cluster, self._events)
        self._turn = asyncio.Semaphore(CONCURRENCY)
        self._terminating: set[str] = set()
        self._applied = AppliedCache(lifetime=settings.resync_seconds, clock=monotonic)

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
                self._metrics.count_reconciliation(time.monotonic() - begin, failed=failed)

    def forget(self, uid: str) -> None:
        """Drop what is kept about a run that no longer exists."""
        self._applied.forget(uid)
        self._pod_refusals.forget(uid)
        self._optional.forget(uid)

    async def _reconcile(self, body: Body) -> float | None:
        held = names.FINALIZER in body["metadata"].get("finalizers", ())
        if "deletionTimestamp" in body["metadata"] and not held:
            return None
        if not held:
            body = await self._add_finalizer(body)
        try:
            run = Run.parse(body)
        except InvalidRunError as error:
            await self._reject(body, error)
            return None
        plan = decide(run, await self._observe(run), self._settings, self._clock())
        events = plan.events
        if plan.status.attempt != run.status.attempt:
            run, events = await self._announce(run, plan), ()
        status = await self._act(run, plan)
        metadata = await self._write(run, await self._with_log(run, status), events)
        refused_anew = await self._optional.apply(run, plan.optional, self._clock())
        for claim in plan.unprotect:
            await self._volumes.unprotect(run.namespace, claim, run.uid)
        for target in plan.delete:
            await self._delete(run, target, again=plan.release)
        if plan.release:
            if left := await self._cluster.remove_finalizer(KIND, metadata, names.FINALIZER):
                self._cache.put_run(left)  # an event of a child must not begin anew before a watch says that it is gone
        elif plan.delete_run:
            await self._cluster.delete(KIND, run.namespace, run.name, uid=run.uid)
        elif plan.answered:
            await self._cluster.remove_annotation(KIND, metadata, names.RETRY)
        return 0.0 if refused_anew else plan.requeue_seconds  # at once: the decision did not know of it

    # 1. hold

    async def _add_finalizer(self, body: Body) -> Body:
        held = await self._cluster.add_finalizer(KIND, body["metadata"], names.FINALIZER)
        self._cache.put_run(held)
        return held

    # 2. read

    async def _reject(self, body: Body, error: InvalidRunError) -> None:
        """Say that a run cannot be read, or let it be deleted; it goes on with an operator that can.

        One that may have trained is left as it is but for its message: this operator may just be older. Only its user
        may let it go.

        Raises:
            InvalidRunError: the run may have trained.

        """
        metadata, status = body["metadata"], body.get("status") or {}
        deleting = "deletionTimestamp" in metadata
        words = refusal.cannot_read(str(error), metadata)
        if self._may_have_trained(metadata, status) and not (deleting and asks_for_release(metadata)):
            if status.get("message") != words:
                await self._write_message(metadata, words)
            raise error
        if deleting:
            claim = names.results_claim(metadata["name"], metadata["uid"])
            target = Unprotect(claim, even_if_deleted=True)
            await self._volumes.unprotect(metadata["namespace"], target, metadata["uid"])
            await self._cluster.remove_finalizer(KIND, metadata, names.FINALIZER)
        elif status.get("message") != words:
            await self._apply_status(metadata, refusal.unreadable(words, metadata.get("generation", 1), self._clock()))

    def _may_have_trained(self, metadata: Manifest, status: Mapping[str, object]) -> bool:
        """Whether anything says that training may have begun; of a status that cannot be read, any trace counts."""
        children = self._cache.children_of(metadata["uid"], metadata["namespace"])
        components = {child["metadata"]["labels"].get(names.COMPONENT) for child in children}
        traces = ("attempt", "progress", "bestCheckpoint", "checkpointUpload", "evaluation", "archive")
        return Component.TRAIN in components or any(status.get(trace) for trace in traces)

    async def _write_message(self, metadata: Manifest, words: str) -> None:
        """Change the message alone of a status that this operator cannot read."""
        change = {
            "metadata": {"resourceVersion": metadata["resourceVersion"]},
            "status": {"message": words},
        }
        written = await self._cluster.patch(KIND, metadata["namespace"], metadata["name"], change, subresource="status")
        self._metrics.count_status_write()
        self._cache.put_run(written)

    # 3. observe

    async def _observe(self, run: Run) -> Observed:
        children = self._cache.children_of(run.uid, run.namespace)
        terminates = run.namespace in self._terminating
        if run.deleting and not terminates:
            terminates = await self._cluster.is_terminating(run.namespace)
        observed = Observed.of(
            children,
            run,
            namespace_terminates=terminates,
            volume=await self._volumes.behind(run) if terminates else None,
            source=self._source(run),
        )
        now = self._clock()
        without_pods = observed.jobs_without_pods(now)
        refused_pods = await self._pod_refusals(run.uid, run.namespace, without_pods, now)
        observed = replace(observed, refused_pods=refused_pods, refused_objects=self._optional.refused(run.uid))
        if run.deleting:
            return observed
        queued, pod = observed.queued_job(), observed.training_pod()
        waits = await queue_message(self._cluster, run.namespace, queued.uid) if queued else None
        progress = await self._ask(run.namespace, pod.name, pod.ip) if pod else None
        return replace(observed, queue_message=waits, progress=progress)

    def _source(self, run: Run) -> Body | None:
        """The run to start from, if there is one."""
        source = run.spec.checkpoints.resume_from
        return self._cache.find_run(run.namespace, source.run) if source and source.run else None

    # 5. act

    async def _announce(self, run: Run, plan: Plan) -> Run:
        """Write that an attempt begins before its Job is made: of a Job that comes and goes nothing else may tell."""
        status = await self._with_log(run, plan.status)
        metadata = await self._write(run, status, plan.events)
        return replace(run, status=status, resource_version=metadata["resourceVersion"])

    async def _act(self, run: Run, plan: Plan) -> DPORunStatus:
        """Carry out the plan; what the API server refuses (quota, policy, a name taken) is reported on the run.

        Returns:
            The status to write, which knows the Jobs that have been made.

        """
        status = plan.status
        try:
            for volume in plan.retain:
                await self._volumes.retain(run, volume)
            for manifest in plan.apply:
                await self._apply(run, manifest)
            for job in plan.create:
                self._applied.clear(run.uid, "Job", job["metadata"]["name"])  # it may exist though no answer comes
                created = await self._cluster.create(job)
                self._cache.put_child(created)
                status = remember_job(status, created)
                self._terminating.discard(run.namespace)
        except (ApiError, NameTakenError) as error:
            if isinstance(error, ApiError) and error.namespace_terminates:
                self._terminating.add(run.namespace)
            if error.refusal:
                await self._report_refusal(run, plan, error.refusal)
            raise
        return status

    async def _report_refusal(self, run: Run, plan: Plan, words: str) -> None:
        """Say what is refused; of a run whose archive Job is, also how its work has ended."""
        events: tuple[Event, ...] = ()
        before = run
        if refusal.is_closing(plan.status) and not run.deleting:
            before, events = replace(run, status=await self._with_log(run, plan.status)), plan.events
        await self._write(run, refusal.refused(before, words, self._clock()), events)

    async def _apply(self, run: Run, manifest: Manifest) -> None:
        """Apply a child, unless its name is taken. A claim is made only once: who enlarges it later means it."""
        kind, name, action = manifest["kind"], manifest["metadata"]["name"], digest(manifest)
        if self._applied.is_done(run.uid, kind, name, action):
            return
        found = await self._cluster.find(kind, run.namespace, name, run_uid=run.uid)
        if found is None or (kind != "PersistentVolumeClaim" and not has(found, manifest)):
            await self._cluster.apply(manifest)
        self._applied.mark(run.uid, kind, name, action)

    async def _delete(self, run: Run, target: Delete, *, again: bool) -> None:
        """Delete a child; an object of another owner stays, whatever its name."""
        action = f"{DELETED} {target.uid or ''}"
        if not again and self._applied.is_done(run.uid, target.kind, target.name, action):
            return
        if target.kind == "Job":  # observed, so its label has been checked; never its successor of that name
            await self._cluster.delete(target.kind, run.namespace, target.name, uid=target.uid)
        else:
            with contextlib.suppress(NameTakenError):
                found = await self._cluster.find(target.kind, run.namespace, target.name, run_uid=run.uid)
                if found is not None:
                    uid = found["metadata"]["uid"]
                    await self._cluster.delete(target.kind, run.namespace, target.name, uid=uid)
        self._applied.mark(run.uid, target.kind, target.name, action)

    # 6. write

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

    async def _write(self, run: Run, status: DPORunStatus, events: tuple[Event, ...]) -> Manifest:
        """Write the status if it has changed, then the Events; returns the run's newest metadata."""
        if status == run.status:
            return run.metadata
        if status.phase != run.status.phase:
            log.info("%s/%s: %s: %s", run.namespace, run.name, status.phase, status.message)
        written = await self._apply_status(run.metadata, status)
        for event in events:
            await self._events.post(written, event)
        metadata: Manifest = written["metadata"]
        return metadata

    async def _apply_status(self, metadata: Manifest, status: DPORunStatus) -> Manifest:
        """Write a status over the very version of the run that it was decided from; another one is a conflict."""
        manifest = {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": {key: metadata[key] for key in ("namespace", "name", "uid", "resourceVersion")},
            "status": status.model_dump(mode="json", by_alias=True, exclude_none=True),
        }
        written = await self._cluster.apply(manifest, subresource="status")
        self._metrics.count_status_write()
        self._cache.put_run(written)
        return written
