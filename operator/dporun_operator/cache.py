"""What the watches saw last: every run, and the Jobs and Pods of each, kept small."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from dporun_api.v1alpha1.status import ConditionType
from dporun_operator import names

Body = Mapping[str, Any]
"""A Kubernetes object as the API server sent it."""

_KEPT_METADATA = (
    "name", "namespace", "uid", "resourceVersion", "labels", "ownerReferences", "creationTimestamp",
    "deletionTimestamp",
)  # fmt: skip


class WatchCache:
    """The newest version seen of every run, Job and Pod.

    Several sources write here in any order (watches, lists, answers to our own writes); an older version never
    replaces a newer one.
    """

    def __init__(self) -> None:
        self.runs: dict[str, Body] = {}
        """Every run, by UID."""
        self._uids: dict[tuple[str, str], str] = {}
        self._waiting: dict[tuple[str, str], set[str]] = {}
        self._children: dict[str, dict[tuple[str, str, str], Body]] = {}

    def put_run(self, body: Body) -> None:
        """Keep a run, unless a newer version of it has been seen."""
        uid = body["metadata"]["uid"]
        if uid not in self.runs or _version(body) >= _version(self.runs[uid]):
            self.runs[uid] = body
            self._uids[_place(body)] = uid
            if source := _source(body):
                self._waiting.setdefault(source, set()).add(uid)

    def remove_run(self, uid: str) -> None:
        """Remove a run and all its children."""
        body = self.runs.pop(uid, None)
        self._children.pop(uid, None)
        if body is None:
            return
        if self._uids.get(_place(body)) == uid:
            del self._uids[_place(body)]
        if source := _source(body):
            self._waiting[source].discard(uid)
            if not self._waiting[source]:
                del self._waiting[source]

    def waiting_for(self, body: Body) -> list[str]:
        """UIDs of the runs that are to start from this one, and wait for it."""
        found = self._waiting.get(_place(body), ())
        return [uid for uid in found if not _is_accepted(self.runs[uid])]

    def put_child(self, body: Body) -> None:
        """Keep a Job or Pod, unless a newer version of it has been seen."""
        key, children = _key(body), self._children.setdefault(_owner(body), {})
        if key not in children or _version(body) >= _version(children[key]):
            children[key] = slim(body)

    def remove_child(self, body: Body) -> None:
        """Remove a Job or Pod, unless its name belongs to a successor by now."""
        owner, key = _owner(body), _key(body)
        children = self._children.get(owner, {})
        if (kept := children.get(key)) and kept["metadata"]["uid"] == body["metadata"]["uid"]:
            del children[key]
        if not children:
            self._children.pop(owner, None)

    def children_of(self, uid: str, namespace: str) -> list[Body]:
        """The Jobs and Pods of a run; objects of other namespaces that bear its label do not count."""
        found = self._children.get(uid, {}).items()
        return [body for (_, place, _), body in found if place == namespace]

    def replace_children(self, kind: str, found: Iterable[Body], *, before: int) -> None:
        """Replace all Jobs, or all Pods, by a fresh list.

        Args:
            kind: Job or Pod.
            found: the list.
            before: newest version that had been seen when the list was requested. A child that is newer and not in
                the list came meanwhile and stays; one that is older and not in it was deleted unseen.

        """
        found = list(found)
        listed = {body["metadata"]["uid"] for body in found}
        for children in self._children.values():
            for key, body in list(children.items()):
                if key[0] == kind and body["metadata"]["uid"] not in listed and _version(body) <= before:
                    del children[key]
        for body in found:
            self.put_child(body)

    def find_run(self, namespace: str, name: str) -> Body | None:
        """The run of that name, or None."""
        return self.runs.get(self._uids.get((namespace, name), ""))

    def newest_child_version(self) -> int:
        """The newest version of any child seen; 0 when there is none."""
        return max((_version(b) for children in self._children.values() for b in children.values()), default=0)

    def count_by_phase(self) -> Counter[str]:
        """Number of runs by phase; a run without status is Pending."""
        return Counter((body.get("status") or {}).get("phase") or "Pending" for body in self.runs.values())


def slim(child: Body) -> dict[str, Any]:
    """Keep only what ``Observed`` reads: thousands of Jobs and Pods stay in memory."""
    metadata, spec = child["metadata"], child.get("spec", {})
    return {
        "kind": child.get("kind"),
        "metadata": {key: metadata[key] for key in _KEPT_METADATA if key in metadata},
        "spec": {key: spec[key] for key in ("suspend", "parallelism") if key in spec},
        "status": child.get("status", {}),
    }


def _place(body: Body) -> tuple[str, str]:
    return body["metadata"]["namespace"], body["metadata"]["name"]


def _source(run: Body) -> tuple[str, str] | None:
    """Namespace and name of the run to start from."""
    checkpoints = (run.get("spec") or {}).get("checkpoints") or {}
    name = (checkpoints.get("resumeFrom") or {}).get("run")
    return (run["metadata"]["namespace"], name) if name else None


def _is_accepted(run: Body) -> bool:
    conditions = (run.get("status") or {}).get("conditions", ())
    return any(entry["type"] == ConditionType.ACCEPTED and entry["status"] == "True" for entry in conditions)


def _owner(body: Body) -> str:
    return str(body["metadata"]["labels"][names.RUN_UID])


def _key(body: Body) -> tuple[str, str, str]:
    return body["kind"], body["metadata"]["namespace"], body["metadata"]["name"]


def _version(body: Body) -> int:
    text = str(body["metadata"].get("resourceVersion", "0"))
    return int(text) if text.isdecimal() else 0
