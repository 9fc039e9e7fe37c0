"""A history: everything that is decided beforehand about the life of a run. Its repr can be pasted into a test."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

from dporun_testing.simulated.faults import Fault
from dporun_testing.simulated.programs import Fate


class Act(StrEnum):
    """What the user does."""

    SUSPEND = "suspends the run"
    RESUME = "resumes the run"
    EDIT = "edits the run"
    DELETE = "deletes the run"
    DELETE_FOREGROUND = "deletes the run in the foreground"
    DELETE_ORPHAN = "deletes the run and orphans its children"
    DELETE_CLAIM = "deletes the claim"
    DELETE_JOBS = "deletes the Jobs"
    DELETE_PODS = "deletes the pods"
    DELETE_NAMESPACE = "deletes the namespace"
    STRIP_RUN = "strips the finalizers off the run"
    STRIP_CLAIM = "strips the finalizers off the claim"
    FORCE_RELEASE = "gives up the results"
    ALTER_ARCHIVE = "alters a file of the archive"


DELETIONS = (Act.DELETE, Act.DELETE_FOREGROUND, Act.DELETE_ORPHAN)

OWN_CLAIM = "shared"

Span = tuple[float, float]
"""From a second on, for so many seconds."""


@dataclass(frozen=True, repr=False)
class History:
    """The life of one run."""

    acts: tuple[tuple[float, Act], ...] = ()
    """What the user does, and when, in seconds from the creation of the run on."""
    fates: tuple[Fate, ...] = ()
    """Of the training attempts; those after the last end well."""
    faults: tuple[tuple[int, Fault], ...] = ()
    """By the number of the operator's request."""
    archive: str | None = "Finished"
    """archive.when; None is no archive."""
    policy: str = "Archive"
    """deletionPolicy."""
    reclaim: str = "Delete"
    """Policy of the StorageClass."""
    own_claim: bool = False
    """Whether the user has made the claim, as spec.storage.claimName."""
    ttl: int | None = None
    """runPolicy.ttlSecondsAfterFinished."""
    max_retries: int = 3
    down: float = 5
    """Seconds for which a killed operator is away."""
    lag: float = 0.2
    """Seconds after which a watch tells."""
    latency: float = 0.05
    """Seconds of one request."""
    pace: float = 0.1
    """Seconds between two looks of the controllers."""
    s3_refuses: Span | None = None
    watches_break: Span | None = None
    second_operator: Span | None = None
    """When another operator runs beside the first one."""

    def __repr__(self) -> str:
        """As it would be written in a test: without what is usual."""
        changed = ((f.name, getattr(self, f.name)) for f in fields(self) if getattr(self, f.name) != f.default)
        return f"History({', '.join(f'{name}={_written(value)}' for name, value in changed)})"

    @property
    def manifest(self) -> dict[str, Any]:
        """The run."""
        archive: Mapping[str, Any] = {"archive": {"uri": "s3://bucket/runs", "when": self.archive}}
        return {
            "apiVersion": "dporun.io/v1alpha1",
            "kind": "DPORun",
            "metadata": {"name": "demo", "namespace": "team-a"},
            "spec": {
                "model": {"uri": "hf://acme/tiny"},
                "dataset": {"train": "s3://bucket/train.jsonl"},
                "deletionPolicy": self.policy,
                "runPolicy": {
                    "maxRetries": self.max_retries,
                    **({} if self.ttl is None else {"ttlSecondsAfterFinished": self.ttl}),
                },
                **({"storage": {"claimName": OWN_CLAIM}} if self.own_claim else {}),
                "tensorboard": {"enabled": False},
                **(archive if self.archive else {}),
            },
        }

    def has(self, *acts: Act) -> bool:
        """Whether the user does one of these."""
        return any(act in acts for _, act in self.acts)


def _written(value: object) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(map(_written, value))}{',' if len(value) == 1 else ''})"
    return f"{type(value).__name__}.{value.name}" if isinstance(value, StrEnum) else repr(value)
