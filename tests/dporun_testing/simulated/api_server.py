"""An API server in memory: it answers the requests of clients as the real one does, as far as this project needs.

``tests/cluster/control_plane/test_api_server.py`` runs the same script on both and compares what is to be seen.
"""

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from dporun_testing.builders import stamp
from dporun_testing.simulated import answers, kinds, patches
from dporun_testing.simulated.kinds import Kind, Place

Body = Mapping[str, Any]
Key = tuple[str, str, str]
"""Kind, namespace, name."""
Listener = Callable[[str, Body], None]
"""Hears of every change: ADDED, MODIFIED or DELETED, and the object."""

_ADMITTED_FINALIZERS = {
    "PersistentVolumeClaim": ["kubernetes.io/pvc-protection"],
    "PersistentVolume": ["kubernetes.io/pv-protection"],
}
_IMMUTABLE = {"Job": ("template", "completions", "selector", "completionMode", "podFailurePolicy")}
_PROPAGATION_FINALIZERS = {"Foreground": "foregroundDeletion", "Orphan": "orphan"}


class ApiServer:
    """Objects, and the verbs on them. Objects are replaced, never changed in place.

    Args:
        now: the time.

    """

    def __init__(self, now: Callable[[], datetime]):
        self.objects: dict[Key, Body] = {}
        self.listeners: list[Listener] = []
        self._now = now
        self._version = 100
        self._born = 0
        self._applied: dict[tuple[Key, str, str], Body] = {}
        self.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}})

    # What clients ask.

    def request(self, method: str, path: str, query: Mapping[str, str], body: Any, content_type: str) -> Any:
        """Answer a request.

        Raises:
            Refused: it is not carried out.

        """
        place = kinds.parse(path)
        verbs: dict[str, Callable[[], Any]] = {
            "GET": lambda: self._read(place, query),
            "POST": lambda: self._post(place, body),
            "PUT": lambda: self._update(place, body),
            "PATCH": lambda: self._patch(place, query, body, content_type),
            "DELETE": lambda: self._delete(place.kind, place.namespace, place.name, body or {}),
        }
        return verbs[method]()

    # What controllers and tests ask.

    def find(self, kind: str, namespace: str, name: str) -> Body | None:
        """The object of that name."""
        return self.objects.get((kind, namespace, name))

    def all(self, kind: str, namespace: str | None = None) -> Iterator[Body]:
        """Every object of a kind, in one namespace or in all."""
        for (found, place, _), body in list(self.objects.items()):
            if found == kind and namespace in {None, place}:
                yield body

    def create(self, body: Body) -> Body:
        """Create an object."""
        return self._create(kinds.BY_NAME[body["kind"]], body["metadata"].get("namespace", ""), body)

    def change(self, body: Body, patch: Mapping[str, Any], *, subresource: str = "") -> Body:
        """Change an object that was read, by a merge patch; it must not have been changed since."""
        metadata = body["metadata"]
        place = Place(kinds.BY_NAME[body["kind"]], metadata.get("namespace", ""), metadata["name"], subresource)
        version = {"metadata": {"resourceVersion": metadata["resourceVersion"]}}
        return self._update(place, patches.merge_patch(patches.merge_patch(body, patch), version))

    def bind(self, pod: Body, node: str) -> Body:
        """Give a pod a node."""
        scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": stamp(self._now())}
        bound = self.change(pod, {"spec": {"nodeName": node}})
        return self.change(bound, {"status": {"conditions": [scheduled]}}, subresource="status")

    def delete(self, body: Body, *, propagation: str = "Background", grace: float | None = None) -> None:
        """Delete an object that was read, if it is still there."""
        metadata = body["metadata"]
        options: dict[str, Any] = {"propagationPolicy": propagation, "preconditions": {"uid": metadata["uid"]}}
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        kind, namespace = kinds.BY_NAME[body["kind"]], metadata.get("namespace", "")
        if (body["kind"], namespace, metadata["name"]) in self.objects:
            self._delete(kind, namespace, metadata["name"], options)

    # The verbs.

    def _read(self, place: Place, query: Mapping[str, str]) -> Any:
        if place.subresource == "log":
            return self._get(place.kind, place.namespace, place.name) and "the log"
        return self._get(place.kind, place.namespace, place.name) if place.name else self._list(place, query)

    def _post(self, place: Place, body: Body) -> Body:
        if place.subresource == "binding":
            return self.bind(self._get(place.kind, place.namespace, place.name), body["target"]["name"])
        return self._create(place.kind, place.namespace, body)

    def _get(self, kind: Kind, namespace: str, name: str) -> Body:
        found = self.find(kind.kind, namespace, name)
        if found is None:
            raise answers.not_found(kind.resource, name)
        return found

    def _list(self, place: Place, query: Mapping[str, str]) -> Body:
        items = self.all(place.kind.kind, place.namespace or None)
        key, _, value = query.get("labelSelector", "").partition("=")
        if key:
            labelled = ((item, item["metadata"].get("labels", {})) for item in items)
            items = (item for item, labels in labelled if key in labels and value in {"", labels[key]})
        for requirement in filter(None, query.get("fieldSelector", "").split(",")):
            path, _, value = requirement.partition("=")
            items = [item for item in items if _field(item, path) == value]
        return {
            "kind": f"{place.kind.kind}List",
            "metadata": {"resourceVersion": str(self._version)},
            "items": [
                {key: value for key, value in item.items() if key not in {"kind", "apiVersion"}} for item in items
            ],
        }

    def _create(self, kind: Kind, namespace: str, body: Body) -> Body:
        name, key = body["metadata"]["name"], (kind.kind, namespace, body["metadata"]["name"])
        self._admit_creation(kind, namespace, name)
        if key in self.objects:
            raise answers.already_exists(kind.resource, name)
        new = patches.copy(body)
        self._born += 1
        metadata = new["metadata"]
        for invented in ("deletionTimestamp", "deletionGracePeriodSeconds", "managedFields", "selfLink"):
            metadata.pop(invented, None)
        if kind.namespaced:
            metadata["namespace"] = namespace
        metadata["uid"] = f"{self._born:08x}-0000-4000-8000-{self._born:012x}"
        metadata["creationTimestamp"] = stamp(self._now())
        if kind.counts_generations:
            metadata["generation"] = 1
        if admitted := _ADMITTED_FINALIZERS.get(kind.kind):
            metadata["finalizers"] = sorted({*metadata.get("finalizers", ()), *admitted})
        if kind.has_status:
            new["status"] = {"phase": "Active"} if kind.kind == "Namespace" else {}
        return self._store(key, new, "ADDED")

    def _admit_creation(self, kind: Kind, namespace: str, name: str) -> None:
        if not kind.namespaced:
            return
        found = self.find("Namespace", "", namespace)
        if found is None:
            raise answers.not_found("namespaces", namespace)
        if "deletionTimestamp" in found["metadata"]:
            raise answers.terminating(kind.resource, name, namespace)

    def _update(self, place: Place, body: Body) -> Body:
        kind, key = place.kind, (place.kind.kind, place.namespace, place.name)
        old = self._get(kind, place.namespace, place.name)
        new, before, after = dict(body), old["metadata"], dict(body.get("metadata", {}))
        if after.get("uid", before["uid"]) != before["uid"] and place.subresource != "status":
            raise answers.other_uid(kind.resource, place.name, after["uid"], before["uid"])
        if after.get("resourceVersion", before["resourceVersion"]) != before["resourceVersion"]:
            raise answers.modified(kind.resource, place.name)
        for kept in ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation"):
            after.pop(kept, None)
            if kept in before:
                after[kept] = before[kept]
        after["resourceVersion"] = before["resourceVersion"]
        if place.subresource == "status":
            new = {**old, "status": new.get("status", {}), "metadata": before}
        else:
            self._check_change(kind, old, new, after)
            new["metadata"] = after
            if kind.has_status:
                new["status"] = old["status"]
        if new == old:
            return old
        if kind.counts_generations and new.get("spec") != old.get("spec"):
            new["metadata"] = {**new["metadata"], "generation": before["generation"] + 1}
        return self._store_or_remove(key, new)

    def _check_change(self, kind: Kind, old: Body, new: Body, metadata: Body) -> None:
        name = metadata["name"]
        for field in _IMMUTABLE.get(kind.kind, ()):
            if new.get("spec", {}).get(field) != old.get("spec", {}).get(field):
                raise answers.invalid("Job.batch", name, f"spec.{field}", "field is immutable")
        added = set(metadata.get("finalizers", ())) - set(old["metadata"].get("finalizers", ()))
        if added and "deletionTimestamp" in old["metadata"]:
            words = "Forbidden: no new finalizers can be added if the object is being deleted"
            raise answers.invalid(kind.kind, name, "metadata.finalizers", f"{words}, found new finalizers {added}")

    def _patch(self, place: Place, query: Mapping[str, str], body: Any, content_type: str) -> Body:
        if content_type == "application/apply-patch+yaml":
            assert query.get("force") == "true", "apply without force is not played"
            return self._apply(place, query["fieldManager"], body)
        live = self._get(place.kind, place.namespace, place.name)
        if content_type == "application/json-patch+json":
            return self._update(place, patches.json_patch(live, body))
        if content_type == "application/merge-patch+json":
            return self._update(place, patches.merge_patch(live, body))
        raise NotImplementedError(content_type)

    def _apply(self, place: Place, manager: str, body: Body) -> Body:
        kind, key = place.kind, (place.kind.kind, place.namespace, place.name)
        live, metadata = self.objects.get(key), body["metadata"]
        memory = (key, manager, place.subresource)
        if live is None:
            if place.subresource:
                raise answers.not_found(kind.resource, place.name)
            if uid := metadata.get("uid"):
                raise answers.no_object_of_uid(kind.resource, place.name, uid)
            created = self._create(kind, place.namespace, body)
            self._applied[memory] = body
            return created
        mine = {key: value for key, value in metadata.items() if key not in {"uid", "resourceVersion"}}
        applied = {**body, "metadata": mine}
        merged = patches.server_side_apply(live, applied, self._applied.get(memory, {}))
        conditions = {key: metadata[key] for key in ("uid", "resourceVersion") if key in metadata}
        updated = self._update(place, {**merged, "metadata": {**merged["metadata"], **conditions}})
        self._applied[memory] = applied
        return updated

    def _delete(self, kind: Kind, namespace: str, name: str, options: Body) -> Body:
        key, old = (kind.kind, namespace, name), self._get(kind, namespace, name)
        before = old["metadata"]
        wanted = options.get("preconditions", {})
        if wanted.get("uid", before["uid"]) != before["uid"]:
            raise answers.other_uid(kind.resource, name, wanted["uid"], before["uid"])
        finalizers = [f for f in before.get("finalizers", ()) if f not in _PROPAGATION_FINALIZERS.values()]
        if propagation := _PROPAGATION_FINALIZERS.get(options.get("propagationPolicy", "Background")):
            finalizers.append(propagation)
        grace = _grace_seconds(kind, old, options)
        metadata = {**before, "finalizers": finalizers}
        if not finalizers:
            metadata.pop("finalizers")
        if "deletionTimestamp" not in before:
            metadata["deletionTimestamp"] = stamp(self._now() + timedelta(seconds=grace))
            metadata["deletionGracePeriodSeconds"] = grace
            if kind.counts_generations:
                metadata["generation"] = before["generation"] + 1
        else:
            metadata["deletionGracePeriodSeconds"] = min(grace, before.get("deletionGracePeriodSeconds", 0))
        new = {**old, "metadata": metadata}
        if kind.kind == "Namespace":
            new["status"] = {"phase": "Terminating"}
        return self._store_or_remove(key, new) if new != old else old

    # The store.

    def _store_or_remove(self, key: Key, new: Body) -> Body:
        """Store a change; an object that is being deleted goes when nothing holds it any more."""
        metadata = new["metadata"]
        held = metadata.get("finalizers") or metadata.get("deletionGracePeriodSeconds") or key[0] == "Namespace"
        if "deletionTimestamp" in metadata and not held:
            return self.remove(key, new)
        return self._store(key, new, "MODIFIED")

    def remove(self, key: Key, last: Body) -> Body:
        """Remove an object at once."""
        del self.objects[key]
        for memory in [memory for memory in self._applied if memory[0] == key]:
            del self._applied[memory]
        last = self._stamped(last)
        self._tell("DELETED", last)
        return last

    def _store(self, key: Key, new: Body, event: str) -> Body:
        self.objects[key] = new = self._stamped(new)
        self._tell(event, new)
        return new

    def _stamped(self, body: Body) -> Body:
        self._version += 1
        return {**body, "metadata": {**body["metadata"], "resourceVersion": str(self._version)}}

    def _tell(self, event: str, body: Body) -> None:
        for listener in list(self.listeners):
            listener(event, body)


def _grace_seconds(kind: Kind, body: Body, options: Body) -> float:
    """How long a pod may take to stop; anything else, and a pod without a node, goes at once."""
    if kind.kind != "Pod" or not body.get("spec", {}).get("nodeName"):
        return 0
    if body["status"].get("phase") in {"Succeeded", "Failed"}:
        return 0
    default = body["spec"].get("terminationGracePeriodSeconds", 30)
    seconds: float = options.get("gracePeriodSeconds", default)
    return seconds


def _field(item: Body, path: str) -> object:
    """The value at a path such as ``involvedObject.uid``; None where there is none."""
    value: object = item
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value
