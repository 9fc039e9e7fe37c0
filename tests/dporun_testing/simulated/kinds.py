"""The kinds that the in-memory API server serves, and what is special about each."""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """A kind of object."""

    kind: str
    api_version: str
    plural: str
    namespaced: bool = True
    has_status: bool = True
    """Whether status is written through a subresource."""
    counts_generations: bool = False

    @property
    def resource(self) -> str:
        """The name that messages use."""
        group, _, version = self.api_version.rpartition("/")
        return f"{self.plural}.{group}" if version and group else self.plural

    @property
    def collection(self) -> str:
        """Path under which the objects of all namespaces are."""
        return f"/{'apis' if '/' in self.api_version else 'api'}/{self.api_version}/{self.plural}"


_KINDS = (
    Kind("ConfigMap", "v1", "configmaps", has_status=False),
    Kind("Event", "v1", "events", has_status=False),
    Kind("PersistentVolumeClaim", "v1", "persistentvolumeclaims"),
    Kind("Pod", "v1", "pods"),
    Kind("Secret", "v1", "secrets", has_status=False),
    Kind("Service", "v1", "services"),
    Kind("Deployment", "apps/v1", "deployments", counts_generations=True),
    Kind("Job", "batch/v1", "jobs", counts_generations=True),
    Kind("Lease", "coordination.k8s.io/v1", "leases", has_status=False),
    Kind("DPORun", "dporun.io/v1alpha1", "dporuns", counts_generations=True),
    Kind("Namespace", "v1", "namespaces", namespaced=False),
    Kind("Node", "v1", "nodes", namespaced=False),
    Kind("PersistentVolume", "v1", "persistentvolumes", namespaced=False),
)
BY_NAME = {kind.kind: kind for kind in _KINDS}
_BY_PLACE = {(kind.api_version, kind.plural): kind for kind in _KINDS}
_PATH = re.compile(
    r"/apis?/(?P<version>v1|[^/]+/[^/]+)(?:/namespaces/(?P<namespace>[^/]+))?/(?P<plural>[a-z]+)"
    r"(?:/(?P<name>[^/]+))?(?:/(?P<subresource>[^/]+))?"
)


@dataclass(frozen=True)
class Place:
    """What a path names."""

    kind: Kind
    namespace: str
    name: str
    subresource: str


def parse(path: str) -> Place:
    """Read a path; one that this server does not serve is a mistake of the test."""
    found = _PATH.fullmatch(path)
    kind = _BY_PLACE.get((found["version"], found["plural"])) if found else None
    if found is None or kind is None:
        raise NotImplementedError(path)
    return Place(kind, found["namespace"] or "", found["name"] or "", found["subresource"] or "")
