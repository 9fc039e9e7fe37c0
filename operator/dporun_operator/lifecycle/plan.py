"""Plan: everything that one reconciliation wants done, in the order in which it is done."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from dporun_api.v1alpha1.status import DPORunStatus
from dporun_operator.run import Manifest


@dataclass(frozen=True)
class Delete:
    """An object to delete, if it exists."""

    kind: str
    name: str
    uid: str | None = None
    """Of the Job that was seen: not its successor of that name, should the request come late."""


@dataclass(frozen=True)
class Unprotect:
    """A claim to take our finalizer off: from then on it is its user's business."""

    claim: str
    even_if_deleted: bool
    """Whether to do so although somebody has deleted the claim, so that its data goes with the finalizer."""
    kept: str | None = None
    """Why the claim outlives its run, to be written on it: an Event may be lost, and is forgotten soon."""


@dataclass(frozen=True)
class Retain:
    """A PersistentVolume to keep although its claim goes."""

    volume: str
    annotations: Mapping[str, str]
    """Whose results it holds, and where on it."""
    message: str
    """The same, for people."""


@dataclass(frozen=True)
class Event:
    """Something to report as a Kubernetes Event, about the run or its volume."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to do about a run."""

    retain: tuple[Retain, ...]
    """PersistentVolumes to keep, before anything else is done."""
    apply: tuple[Manifest, ...]
    """Objects to have, by server-side apply."""
    create: tuple[Manifest, ...]
    """Jobs to start: made once and never changed, as a Job's template cannot be."""
    optional: tuple[Manifest, ...]
    """Objects to have that the run can do without, likewise: one that is refused does not hold up the rest."""
    delete: tuple[Delete, ...]
    unprotect: tuple[Unprotect, ...]
    status: DPORunStatus
    events: tuple[Event, ...]
    """To emit once the status is written."""
    answered: bool
    """Take the annotation off by which the user has asked for another try: the status shows what came of it."""
    delete_run: bool
    """The run has been finished for as long as it was to stay."""
    release: bool
    """Everything is safe: take our finalizer off."""
    requeue_seconds: float | None
    """When to look again, if nothing happens before; None: only when something happens."""
