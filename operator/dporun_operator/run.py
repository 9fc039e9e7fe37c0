"""Run: a DPORun as the plan sees it, parsed once at the edge."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from pydantic import ValidationError

from dporun_api.run_config import Identity
from dporun_api.text import parse_time
from dporun_api.v1alpha1 import API_VERSION, KIND
from dporun_api.v1alpha1.spec import DPORunSpec
from dporun_api.v1alpha1.status import Condition, ConditionType, DPORunStatus
from dporun_operator import names
from dporun_operator.errors import InvalidRunError

Manifest = dict[str, Any]
"""A Kubernetes object as plain data."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """A DPORun: who it is, what it asks for, and what was last said about it."""

    name: str
    namespace: str
    uid: str
    generation: int
    resource_version: str
    finalizers: tuple[str, ...]
    deletion_time: datetime | None
    """When the run was deleted, if it was."""
    force_release: bool
    """Whether the user asks to let the run go, whatever becomes of its results."""
    asks_to_archive: bool
    """Whether the user asks to try archiving once more, and at once."""
    spec: DPORunSpec
    status: DPORunStatus
    manifest: Manifest
    """What the user wrote: without status and without what the API server adds."""

    @classmethod
    def parse(cls, body: Mapping[str, Any]) -> Self:
        """Read the resource.

        Raises:
            InvalidRunError: spec or status do not have the shape that this operator knows.

        """
        metadata = body["metadata"]
        try:
            spec = DPORunSpec.model_validate(body.get("spec") or {})
            status = DPORunStatus.model_validate(body.get("status") or {}, extra="ignore")
        except ValidationError as error:
            raise InvalidRunError(_explain(error)) from error
        return cls(
            name=metadata["name"],
            namespace=metadata["namespace"],
            uid=metadata["uid"],
            generation=metadata.get("generation", 1),
            resource_version=metadata["resourceVersion"],
            finalizers=tuple(metadata.get("finalizers", ())),
            deletion_time=parse_time(metadata.get("deletionTimestamp")),
            force_release=asks_for_release(metadata),
            asks_to_archive=metadata.get("annotations", {}).get(names.RETRY) == "archive",
            spec=spec,
            status=status,
            manifest=_as_written(body),
        )

    @property
    def deleting(self) -> bool:
        """Whether the run has been deleted, and waits for its finalizers."""
        return self.deletion_time is not None

    @property
    def metadata(self) -> Manifest:
        """What names this very version of the run."""
        return {
            "namespace": self.namespace,
            "name": self.name,
            "uid": self.uid,
            "resourceVersion": self.resource_version,
            "finalizers": self.finalizers,
        }

    @property
    def identity(self) -> Identity:
        """How the trainer knows the run."""
        return Identity(name=self.name, namespace=self.namespace, uid=self.uid)

    @property
    def directory(self) -> str:
        """The run's folder on the volume and in the archive."""
        return self.identity.directory

    @property
    def claim_name(self) -> str:
        """PersistentVolumeClaim of the results."""
        return self.spec.storage.claim_name or names.results_claim(self.name, self.uid)

    def condition(self, kind: ConditionType) -> Condition | None:
        """The condition last written."""
        return next((condition for condition in self.status.conditions if condition.type is kind), None)


def asks_for_release(metadata: Mapping[str, Any]) -> bool:
    """Whether the user asks to let the run go: by its own UID, so that a copied manifest does not."""
    return bool(metadata.get("annotations", {}).get(names.FORCE_RELEASE) == metadata["uid"])


def _as_written(body: Mapping[str, Any]) -> Manifest:
    metadata = {
        key: value for key in ("name", "namespace", "labels", "annotations") if (value := body["metadata"].get(key))
    }
    annotations = {
        key: value
        for key, value in metadata.get("annotations", {}).items()
        if key != "kubectl.kubernetes.io/last-applied-configuration"
    }
    metadata.pop("annotations", None)
    if annotations:
        metadata["annotations"] = annotations
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": metadata,
        "spec": dict(body.get("spec") or {}),
    }


def _explain(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where}: {first['msg']}" + (f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else "")
