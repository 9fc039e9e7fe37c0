"""Observed: the Jobs and Pods of one run, reduced to what decisions need."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self

from dporun_api.results import Progress
from dporun_api.text import parse_time
from dporun_api.v1alpha1.status import ArchiveState
from dporun_operator import names
from dporun_operator.names import Component
from dporun_operator.run import Run

NO_POD_SECONDS = 5.0
"""A Job gets its pods at once, unless something refuses them."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A Job of the run."""

    name: str
    uid: str
    component: str
    attempt: int
    suspended: bool
    parallelism: int
    """How many pods it has at a time."""
    doomed: bool
    """A pod of it has failed, so it can only fail; while it is suspended, it does not say so yet."""
    succeeded: bool
    failed: bool
    """It is over without success; see ``_is_forgotten`` for one that does not say so."""
    message: str
    """Why it failed, in the words of the Job controller."""
    created_at: datetime | None
    waits_since: datetime | None
    """When it was created or, if a queue has stopped or started it since, when it last did."""
    finished_at: datetime | None

    @property
    def finished(self) -> bool:
        """Complete or failed."""
        return self.succeeded or self.failed

    @classmethod
    def parse(cls, child: Mapping[str, Any]) -> Self:
        """Read a Job."""
        metadata, spec, status = child["metadata"], child.get("spec", {}), child.get("status", {})
        latest = {entry["type"]: entry for entry in status.get("conditions", ())}
        conditions = {kind: entry for kind, entry in latest.items() if entry["status"] == "True"}
        end = conditions.get("Complete") or conditions.get("Failed") or {}
        queued = latest.get("Suspended", {})
        return cls(
            name=metadata["name"],
            uid=metadata["uid"],
            component=metadata["labels"].get(names.COMPONENT, ""),
            attempt=_attempt(metadata["labels"]),
            suspended=bool(spec.get("suspend")),
            parallelism=spec.get("parallelism", 1),
            doomed="FailureTarget" in conditions,
            succeeded="Complete" in conditions,
            failed="Failed" in conditions or _is_forgotten(status),
            message=end.get("message", ""),
            created_at=parse_time(metadata.get("creationTimestamp")),
            waits_since=parse_time(queued.get("lastTransitionTime") or metadata.get("creationTimestamp")),
            finished_at=parse_time(end.get("lastTransitionTime")),
        )


def _is_forgotten(status: Mapping[str, Any]) -> bool:
    """Whether a pod has failed, none is left, and the Job controller has drawn no conclusion.

    None of our Jobs gets a second pod, so it is over. The controller says so at once or, if the API server died in that
    moment, when something touches the Job the next time, which may be never. A Job that a queue has stopped counts the
    pods that were stopped as failed, and gets new ones.
    """
    queued = any(entry["type"] == "Suspended" for entry in status.get("conditions", ()))
    return bool(status.get("failed")) and not queued and not status.get("active") and not status.get("terminating")


@dataclass(frozen=True, kw_only=True)
class Container:
    """The state of a container; of a sidecar as well."""

    running: bool = False
    ready: bool = False
    started_at: datetime | None = None
    waiting: str | None = None
    """Why it does not run yet, such as ``ImagePullBackOff``."""
    exit_code: int | None = None
    """How it ended, when it did."""
    reason: str | None = None
    """Why it ended, such as ``OOMKilled``."""
    message: str | None = None
    """Words about ``waiting``, or the termination message."""

    @classmethod
    def parse(cls, status: Mapping[str, Any]) -> Self:
        """Read a container status."""
        state = status.get("state", {})
        running, waiting, ended = state.get("running"), state.get("waiting"), state.get("terminated")
        return cls(
            running=running is not None,
            ready=status.get("ready", False),
            started_at=parse_time(running.get("startedAt")) if running else None,
            waiting=waiting.get("reason") if waiting else None,
            exit_code=ended.get("exitCode") if ended else None,
            reason=ended.get("reason") if ended else None,
            message=(ended or waiting or {}).get("message"),
        )


@dataclass(frozen=True, kw_only=True)
class Pod:
    """A pod of the run."""

    name: str
    controller: str | None
    """UID of the Job or ReplicaSet that made it."""
    component: str
    attempt: int
    index: int
    phase: str
    created_at: datetime | None
    scheduled: bool
    scheduled_at: datetime | None
    unschedulable: str | None
    """The scheduler's words, while it finds no node."""
    disruption: str | None
    """Why Kubernetes itself ended the pod, such as ``PreemptionByScheduler``."""
    reason: str | None
    """Reason of the pod as a whole, such as ``Evicted``."""
    message: str | None
    ip: str | None
    stops_at: datetime | None
    """When its grace period ends, once it is being deleted."""
    main: Container
    tensorboard: Container

    @property
    def ended(self) -> bool:
        """Every container of the pod has ended."""
        return self.phase in {"Succeeded", "Failed"}

    @classmethod
    def parse(cls, child: Mapping[str, Any]) -> Self:
        """Read a Pod."""
        metadata, status = child["metadata"], child.get("status", {})
        conditions = {entry["type"]: entry for entry in status.get("conditions", ())}
        scheduled, disruption = conditions.get("PodScheduled", {}), conditions.get("DisruptionTarget", {})
        containers = {
            entry["name"]: Container.parse(entry)
            for entry in (*status.get("containerStatuses", ()), *status.get("initContainerStatuses", ()))
        }
        waits = scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable"
        return cls(
            name=metadata["name"],
            controller=(_controller(metadata) or {}).get("uid"),
            component=metadata["labels"].get(names.COMPONENT, ""),
            attempt=_attempt(metadata["labels"]),
            index=_number(metadata["labels"].get(names.COMPLETION_INDEX), 0),
            phase=status.get("phase", "Pending"),
            created_at=parse_time(metadata.get("creationTimestamp")),
            scheduled=scheduled.get("status") == "True",
            scheduled_at=parse_time(scheduled.get("lastTransitionTime")),
            unschedulable=scheduled.get("message", "no node fits") if waits else None,
            disruption=disruption.get("reason", "Disruption") if disruption.get("status") == "True" else None,
            reason=status.get("reason"),
            message=status.get("message"),
            ip=status.get("podIP"),
            stops_at=parse_time(metadata.get("deletionTimestamp")),
            main=containers.get(names.MAIN_CONTAINER, Container()),
            tensorboard=containers.get(names.TENSORBOARD_CONTAINER, Container()),
        )


@dataclass(frozen=True, kw_only=True)
class Source:
    """The run that ``checkpoints.resumeFrom.run`` names."""

    phase: str
    deleting: bool
    archive: ArchiveState | None
    uri: str | None
    """Its archive, once it has one."""
    message: str
    """Why it has none, if it says so."""

    @classmethod
    def parse(cls, body: Mapping[str, Any]) -> Self:
        """Read the resource as far as it matters here; another version of the operator may have written it."""
        status = body.get("status") or {}
        archive = status.get("archive") or {}
        state = archive.get("state")
        known = ArchiveState(state) if state in set(ArchiveState) else None
        return cls(
            phase=status.get("phase") or "Pending",
            deleting="deletionTimestamp" in body["metadata"],
            archive=known,
            uri=archive.get("uri") if known is ArchiveState.SUCCEEDED else None,
            message=archive.get("message") or "",
        )


@dataclass(frozen=True, kw_only=True)
class Observed:
    """Everything seen of a run's children."""

    jobs: tuple[Job, ...] = ()
    pods: tuple[Pod, ...] = ()
    progress: Progress | None = None
    """What the first training pod said last."""
    refused_pods: Mapping[str, str] = field(default_factory=dict)
    """Why the API server refuses pods of a Job that lacks them, by name of the Job."""
    refused_objects: Mapping[str, str] = field(default_factory=dict)
    """Why it refuses an object that the run can do without, by kind and name."""
    namespace_terminates: bool = False
    """Whether the run's namespace is being deleted, so that nothing can be created in it any more."""
    volume: str | None = None
    """PersistentVolume that the run's claim is bound to; looked for only where the namespace is being deleted."""
    queue_message: str | None = None
    """Why Kueue keeps the training Job suspended, in its own words."""
    source: Source | None = None
    """The run that ``checkpoints.resumeFrom.run`` names, if there is one."""

    @classmethod
    def of(
        cls,
        children: Iterable[Mapping[str, Any]],
        run: Run,
        *,
        progress: Progress | None = None,
        namespace_terminates: bool = False,
        volume: str | None = None,
        source: Mapping[str, Any] | None = None,
    ) -> Self:
        """Read the children of a run, in the order of their attempts; what only bears its label is none of them."""
        ours = [child for child in children if _is_child(child, run)]
        jobs = [Job.parse(child) for child in ours if child["kind"] == "Job"]
        pods = [Pod.parse(child) for child in ours if child["kind"] == "Pod"]
        return cls(
            jobs=tuple(sorted(jobs, key=lambda job: (job.component, job.attempt))),
            pods=tuple(sorted(pods, key=lambda pod: (pod.component, pod.attempt, pod.index, pod.name))),
            progress=progress,
            namespace_terminates=namespace_terminates,
            volume=volume,
            source=None if source is None else Source.parse(source),
        )

    @property
    def source_uri(self) -> str | None:
        """Archive of the run to start from, once it has one."""
        return self.source.uri if self.source else None

    def jobs_of(self, component: Component) -> tuple[Job, ...]:
        """Jobs of one component, oldest attempt first."""
        return tuple(job for job in self.jobs if job.component == component)

    def job(self, component: Component, attempt: int = 1) -> Job | None:
        """The Job of one attempt."""
        return next((job for job in self.jobs_of(component) if job.attempt == attempt), None)

    def pods_of(self, component: Component, attempt: int | None = None) -> tuple[Pod, ...]:
        """Pods of one component, of one attempt or of all."""
        return tuple(pod for pod in self.pods if pod.component == component and attempt in {None, pod.attempt})

    def jobs_without_pods(self, now: datetime) -> tuple[Job, ...]:
        """Jobs that should have pods, and have lacked some for so long that something is wrong."""
        pods = Counter((pod.component, pod.attempt) for pod in self.pods)
        idle = [job for job in self.jobs if not (job.finished or job.suspended)]
        late = [job for job in idle if job.waits_since and (now - job.waits_since).total_seconds() >= NO_POD_SECONDS]
        return tuple(job for job in late if pods[job.component, job.attempt] < job.parallelism)

    def queued_job(self) -> Job | None:
        """The training Job that waits in a queue."""
        return next((job for job in self.jobs_of(Component.TRAIN) if job.suspended and not job.finished), None)

    def training_pod(self) -> Pod | None:
        """The pod that serves progress: the newest of completion index 0 that runs."""
        running = [pod for pod in self.pods_of(Component.TRAIN) if pod.index == 0 and pod.main.running]
        return running[-1] if running else None


def _is_child(child: Mapping[str, Any], run: Run) -> bool:
    """Whether the operator made ``child`` for ``run``, by itself or by a Job or Deployment that it made.

    Anyone may copy a label: a Job must have the name of its attempt and, unless it archives, the run as its owner; a
    pod must be controlled by what has that name. A deletion that orphans (``--cascade=orphan``) takes the owner off
    while the run still waits for its Jobs to stop.
    """
    metadata = child["metadata"]
    labels, controller = metadata["labels"], _controller(metadata)
    component, attempt = labels.get(names.COMPONENT), _attempt(labels)
    if component == Component.TENSORBOARD:  # its ReplicaSet is named after the Deployment
        prefix = names.tensorboard(run.name) + "-"
        return child["kind"] == "Pod" and controller is not None and str(controller["name"]).startswith(prefix)
    if component not in _JOBS:
        return False
    name = _JOBS[component](run.name, attempt)
    if child["kind"] == "Pod":
        return controller is not None and (controller["kind"], controller["name"]) == ("Job", name)
    owned = run.deleting if controller is None else controller["uid"] == run.uid
    return bool(metadata["name"] == name) and (owned or component == Component.ARCHIVE)


_JOBS: Mapping[str, Callable[[str, int], str]] = {
    Component.PREPARE: names.prepare_job,
    Component.TRAIN: names.train_job,
    Component.ARCHIVE: names.archive_job,
}
"""Name of each component's Job, from the run's name and the attempt."""


def _controller(metadata: Mapping[str, Any]) -> Mapping[str, Any] | None:
    return next((owner for owner in metadata.get("ownerReferences", ()) if owner.get("controller")), None)


def _attempt(labels: Mapping[str, str]) -> int:
    return _number(labels.get(names.ATTEMPT), 1)


def _number(text: str | None, default: int) -> int:
    """Read a label; anyone may have written it."""
    return int(text) if text and text.isascii() and text.isdecimal() else default
