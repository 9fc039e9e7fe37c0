"""The controllers of a control plane that concern every object: garbage collector, namespaces, volumes.

Each function is one look at everything.
"""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from dporun_testing.simulated.api_server import ApiServer, Body

FOREGROUND, ORPHAN = "foregroundDeletion", "orphan"
PROTECTION = "kubernetes.io/pvc-protection"


def collect_garbage(server: ApiServer) -> None:
    """Delete what has no owner any more, and end the deletions that wait for what they own."""
    bodies = {body["metadata"]["uid"]: body for body in server.objects.values()}
    dependents: dict[str, list[Body]] = defaultdict(list)
    for body in bodies.values():
        for owner in body["metadata"].get("ownerReferences", ()):
            dependents[owner["uid"]].append(body)
    for uid, body in bodies.items():
        if "deletionTimestamp" not in body["metadata"] or not _is_current(server, body):
            continue
        if ORPHAN in body["metadata"].get("finalizers", ()):
            _orphan(server, body, dependents[uid])
        elif FOREGROUND in body["metadata"].get("finalizers", ()):
            _end_foreground(server, body, dependents[uid])
    for uid, owned in dependents.items():
        for body in owned:
            if "deletionTimestamp" in body["metadata"] or not _is_current(server, body):
                continue
            owners = [bodies.get(owner["uid"]) for owner in body["metadata"]["ownerReferences"]]
            if not any(owners):
                server.delete(body)
            elif (owner := bodies.get(uid)) and _deletes_in_foreground(owner):
                server.delete(
                    body, propagation="Foreground" if dependents.get(body["metadata"]["uid"]) else "Background"
                )


def _is_current(server: ApiServer, body: Body) -> bool:
    """Whether an object has not been changed since it was read; otherwise the next look is early enough."""
    return server.find(body["kind"], body["metadata"].get("namespace", ""), body["metadata"]["name"]) is body


def _deletes_in_foreground(body: Body) -> bool:
    return "deletionTimestamp" in body["metadata"] and FOREGROUND in body["metadata"].get("finalizers", ())


def _orphan(server: ApiServer, owner: Body, dependents: list[Body]) -> None:
    uid = owner["metadata"]["uid"]
    for body in dependents:
        rest = [reference for reference in body["metadata"]["ownerReferences"] if reference["uid"] != uid]
        server.change(body, {"metadata": {"ownerReferences": rest or None}})
    drop_finalizer(server, owner, ORPHAN)


def _end_foreground(server: ApiServer, owner: Body, dependents: list[Body]) -> None:
    uid = owner["metadata"]["uid"]
    references = [r for body in dependents for r in body["metadata"]["ownerReferences"] if r["uid"] == uid]
    if not any(reference.get("blockOwnerDeletion") for reference in references):
        drop_finalizer(server, owner, FOREGROUND)


def drop_finalizer(server: ApiServer, body: Body, finalizer: str) -> None:
    """Take one finalizer off an object."""
    rest = [name for name in body["metadata"].get("finalizers", ()) if name != finalizer]
    server.change(body, {"metadata": {"finalizers": rest or None}})


def end_namespaces(server: ApiServer) -> None:
    """Empty namespaces that are being deleted, pods first, and remove those that are empty."""
    for namespace in server.all("Namespace"):
        name = namespace["metadata"]["name"]
        if "deletionTimestamp" not in namespace["metadata"]:
            continue
        content = [body for (_, place, _), body in server.objects.items() if place == name]
        pods = [body for body in content if body["kind"] == "Pod"]
        for body in pods or content:
            if "deletionTimestamp" not in body["metadata"]:
                server.delete(body)
        if not content:
            server.remove(("Namespace", "", name), namespace)


def protect_claims(server: ApiServer) -> None:
    """Let go of a deleted claim that no pod with a node uses."""
    for claim in server.all("PersistentVolumeClaim"):
        metadata = claim["metadata"]
        if "deletionTimestamp" not in metadata or PROTECTION not in metadata.get("finalizers", ()):
            continue
        users = (pod for pod in server.all("Pod", metadata["namespace"]) if metadata["name"] in claims_of(pod))
        if not any(pod["spec"].get("nodeName") for pod in users):  # one that has ended counts, until it is deleted
            drop_finalizer(server, claim, PROTECTION)


def claims_of(pod: Body) -> list[str]:
    """Claims that a pod mounts."""
    volumes: list[Mapping[str, Any]] = pod["spec"].get("volumes", [])
    return [v["persistentVolumeClaim"]["claimName"] for v in volumes if "persistentVolumeClaim" in v]


def bind(server: ApiServer, claim: Body, *, reclaim: str) -> None:
    """Make a volume for a claim that a pod needs, as a StorageClass that waits for the first consumer does."""
    metadata = claim["metadata"]
    name = f"pvc-{metadata['uid']}"
    server.create(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": name},
            "spec": {
                "persistentVolumeReclaimPolicy": reclaim,
                "claimRef": {key: metadata[key] for key in ("namespace", "name", "uid")},
            },
        }
    )
    bound = server.change(claim, {"spec": {"volumeName": name}})
    server.change(bound, {"status": {"phase": "Bound"}}, subresource="status")


def reclaim_volumes(server: ApiServer) -> None:
    """Delete or release the volumes whose claim no longer exists."""
    for volume in server.all("PersistentVolume"):
        reference = volume["spec"].get("claimRef")
        if reference is None:
            continue
        claim = server.find("PersistentVolumeClaim", reference["namespace"], reference["name"])
        if claim is not None and claim["metadata"]["uid"] == reference.get("uid", claim["metadata"]["uid"]):
            continue
        if volume["spec"]["persistentVolumeReclaimPolicy"] == "Delete":
            server.remove(("PersistentVolume", "", volume["metadata"]["name"]), volume)
        elif volume["status"].get("phase") != "Released":
            server.change(volume, {"status": {"phase": "Released"}}, subresource="status")


def control(server: ApiServer) -> None:
    """One look of every controller."""
    collect_garbage(server)
    end_namespaces(server)
    protect_claims(server)
    reclaim_volumes(server)
