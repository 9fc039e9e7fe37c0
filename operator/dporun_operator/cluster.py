"""The Kubernetes API, as plain data: the only module that knows the client library.

Every call has a timeout, and every refusal becomes an ApiError with the API server's own words.
"""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, Self

import aiohttp
from kubernetes.aio import client, config

from dporun_api.v1alpha1 import API_VERSION, KIND, PLURAL
from dporun_operator import names
from dporun_operator.errors import ApiError, InvalidSettingsError, NameTakenError, NotHolderError
from dporun_operator.run import Manifest

TIMEOUT_SECONDS: Final = 30.0
APPLY_PATCH: Final = "application/apply-patch+yaml"
MERGE_PATCH: Final = "application/merge-patch+json"
JSON_PATCH: Final = "application/json-patch+json"
JSON: Final = "application/json"

_COLLECTIONS: Final = {
    "ConfigMap": ("/api/v1", "configmaps"),
    "Event": ("/api/v1", "events"),
    "Namespace": ("/api/v1", "namespaces"),
    "PersistentVolume": ("/api/v1", "persistentvolumes"),
    "PersistentVolumeClaim": ("/api/v1", "persistentvolumeclaims"),
    "Pod": ("/api/v1", "pods"),
    "Service": ("/api/v1", "services"),
    "Deployment": ("/apis/apps/v1", "deployments"),
    "Job": ("/apis/batch/v1", "jobs"),
    "Lease": ("/apis/coordination.k8s.io/v1", "leases"),
    "Workload": ("/apis/kueue.x-k8s.io/v1beta1", "workloads"),
    KIND: (f"/apis/{API_VERSION}", PLURAL),
}


@dataclass(frozen=True)
class Excerpt:
    """The start of a response's body, at most as many bytes as were asked for, and whether that was all of it."""

    body: bytes
    complete: bool


class Cluster:
    """One API server, through a client that ``connect`` opens and closes.

    Args:
        api: the client.
        may_write: asked before every request that changes something.

    """

    def __init__(self, api: client.ApiClient, may_write: Callable[[], bool] = lambda: True):
        self._api = api
        self._may_write = may_write
        self.requests: Counter[tuple[str, str]] = Counter()
        """Requests sent so far, by method and resource."""

    @classmethod
    @asynccontextmanager
    async def connect(cls) -> AsyncIterator[Self]:
        """Use the service account of the pod or, outside a cluster, the kubeconfig.

        Raises:
            InvalidSettingsError: there is neither.

        """
        try:
            config.load_incluster_config()
        except config.ConfigException:
            try:
                await config.load_kube_config()
            except config.ConfigException as error:
                raise InvalidSettingsError(f"not in a pod, and no kubeconfig that names a cluster: {error}") from error
        async with client.ApiClient() as api:
            yield cls(api)

    def guarded_by(self, may_write: Callable[[], bool]) -> "Cluster":
        """The same API server, to which nothing is written unless ``may_write``; its requests are counted apart."""
        return Cluster(self._api, may_write)

    async def apply(self, manifest: Manifest, *, subresource: str = "") -> Manifest:
        """Create or change an object by server-side apply and return it as it is stored then.

        Fields that another manager owns are taken over.
        """
        path = _path(manifest["kind"], manifest["metadata"]["namespace"], manifest["metadata"]["name"], subresource)
        query = {"fieldManager": names.OPERATOR, "force": "true"}
        return await self._call("PATCH", path, query=query, body=manifest, content_type=APPLY_PATCH)

    async def create(self, manifest: Manifest) -> Manifest:
        """Create ``manifest`` and return it; one that this run owns already is returned as it is.

        Raises:
            NameTakenError: an object of that name belongs to another owner or to none, or is still being deleted.

        """
        kind, metadata = manifest["kind"], manifest["metadata"]
        try:
            return await self.post(manifest)
        except ApiError as error:
            if not error.conflict:
                raise
            found = await self.find(
                kind, metadata["namespace"], metadata["name"], run_uid=metadata["labels"][names.RUN_UID]
            )
            if found is None:
                raise
        if "ownerReferences" not in metadata:
            raise NameTakenError(f"{kind} {metadata['name']} exists already; it is replaced")
        if "deletionTimestamp" in found["metadata"]:
            raise NameTakenError(f"{kind} {metadata['name']} is still being deleted")
        return found

    async def get(self, kind: str, namespace: str | None, name: str) -> Manifest | None:
        """Get an object; None when there is none."""
        try:
            return await self._call("GET", _path(kind, namespace, name))
        except ApiError as error:
            if error.not_found:
                return None
            raise

    async def find(self, kind: str, namespace: str, name: str, *, run_uid: str) -> Manifest | None:
        """Get the object of that name, if the run has one; None when there is none.

        Raises:
            NameTakenError: there is one, and it is not of this run.

        """
        found = await self.get(kind, namespace, name)
        if found is not None and found["metadata"].get("labels", {}).get(names.RUN_UID) != run_uid:
            raise NameTakenError(
                f"{kind} {name} exists already and is not of this run; delete it, or give the run another name"
            )
        return found

    async def post(self, manifest: Manifest) -> Manifest:
        """Create an object, of which there must be none yet, and return it."""
        path = _path(manifest["kind"], manifest["metadata"]["namespace"])
        return await self._call("POST", path, query={"fieldManager": names.OPERATOR}, body=manifest)

    async def is_terminating(self, namespace: str) -> bool:
        """Whether a namespace is being deleted; an operator that may not ask learns it when a child is refused."""
        try:
            found = await self.get("Namespace", None, namespace)
        except ApiError as error:
            if error.refused:
                return False
            raise
        return found is None or "deletionTimestamp" in found["metadata"]

    async def patch(
        self, kind: str, namespace: str | None, name: str, patch: Mapping[str, object], *, subresource: str = ""
    ) -> Manifest:
        """Change some fields of an object and leave the others alone, by a JSON merge patch."""
        path, query = _path(kind, namespace, name, subresource), {"fieldManager": names.OPERATOR}
        return await self._call("PATCH", path, query=query, body=patch, content_type=MERGE_PATCH)

    async def post_event(self, event: Manifest) -> None:
        """Post a Kubernetes Event."""
        await self.post(event)

    async def delete(self, kind: str, namespace: str, name: str, *, uid: str | None = None) -> None:
        """Delete an object and, in the background, what it owns. One that is not there is no error."""
        body: Manifest = {"propagationPolicy": "Background"}
        if uid is not None:
            body["preconditions"] = {"uid": uid}
        try:
            await self._call("DELETE", _path(kind, namespace, name), body=body)
        except ApiError as error:
            if not error.not_found:
                raise

    async def add_finalizer(self, kind: str, metadata: Manifest, finalizer: str) -> Manifest:
        """Add a finalizer to the object of ``metadata``, provided that nobody has changed it meanwhile."""
        return await self._set_finalizers(kind, metadata, [*metadata.get("finalizers", ()), finalizer])

    async def remove_finalizer(self, kind: str, metadata: Manifest, finalizer: str) -> Manifest | None:
        """Take a finalizer off the object of ``metadata``, provided that nobody has changed it meanwhile.

        Returns:
            The object then, also if that was its end; None where it had no such finalizer.

        """
        before = metadata.get("finalizers", ())
        if finalizer not in before:
            return None
        return await self._set_finalizers(kind, metadata, [other for other in before if other != finalizer])

    async def remove_annotation(self, kind: str, metadata: Manifest, name: str) -> None:
        """Take an annotation off the object of ``metadata``, provided that nobody has changed it meanwhile."""
        change = {"resourceVersion": metadata["resourceVersion"], "annotations": {name: None}}
        await self.patch(kind, metadata["namespace"], metadata["name"], {"metadata": change})

    async def _set_finalizers(self, kind: str, metadata: Manifest, finalizers: list[str]) -> Manifest:
        patch = [
            {"op": "test", "path": "/metadata/resourceVersion", "value": metadata["resourceVersion"]},
            {"op": "add", "path": "/metadata/finalizers", "value": finalizers},
        ]
        path, query = _path(kind, metadata["namespace"], metadata["name"]), {"fieldManager": names.OPERATOR}
        return await self._call("PATCH", path, query=query, body=patch, content_type=JSON_PATCH)

    async def list(
        self, kind: str, *, namespace: str | None, label: str | None = None, field: str | None = None
    ) -> list[Manifest]:
        """List a kind in one namespace, or in all when None; asks for one page after the other."""
        selectors = {"labelSelector": label, "fieldSelector": field}
        query = {"limit": "500", **{name: selector for name, selector in selectors.items() if selector}}
        found: list[Manifest] = []
        while True:
            page = await self._call("GET", _path(kind, namespace), query=query)
            found += [{**item, "kind": kind} for item in page["items"]]
            if not (token := page.get("metadata", {}).get("continue")):
                return found
            query["continue"] = token

    async def log_tail(self, namespace: str, pod: str, *, container: str, limit: int) -> str:
        """The last lines of a container's log, at most ``limit`` characters."""
        query = {"container": container, "tailLines": "40"}
        path = _path("Pod", namespace, pod, "log")
        answer = await self._read(path, query=query, limit=1 << 20)
        return answer.body.decode("utf-8", "replace")[-limit:]

    async def proxy_get(self, namespace: str, pod: str, port: int, path: str, *, limit: int) -> Excerpt:
        """GET from a pod through the API server's proxy; reads at most ``limit`` bytes."""
        return await self._read(f"{_path('Pod', namespace, f'{pod}:{port}', 'proxy')}{path}", query={}, limit=limit)

    async def _read(self, path: str, *, query: Mapping[str, str], limit: int) -> Excerpt:
        response = await self._send("GET", path, query=query)
        content = response.content
        try:
            body = await content.readexactly(limit)
        except asyncio.IncompleteReadError as short:
            return Excerpt(short.partial, complete=True)
        finally:
            response.close()
        return Excerpt(body, complete=False)

    async def _call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: object = None,
        content_type: str = JSON,
    ) -> Manifest:
        response = await self._send(method, path, query=query or {}, body=body, content_type=content_type)
        try:
            return json.loads(await response.read()) or {}
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise ApiError(0, type(error).__name__, f"{method} {path}: {error}") from error

    async def _send(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str],
        body: object = None,
        content_type: str = JSON,
    ) -> aiohttp.ClientResponse:
        if method != "GET" and not self._may_write():
            raise NotHolderError(f"{method} {path}: not sent, because this operator does not hold the lease")
        self.requests[method, _resource(path)] += 1
        request = await self._api.param_serialize(
            method,
            path,
            query_params=list(query.items()),
            header_params={"Content-Type": content_type, "Accept": "*/*"},
            body=body,
            auth_settings=["BearerToken"],
        )
        try:
            timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
            answer = await self._api.call_api(*request, _request_timeout=timeout)
            response: aiohttp.ClientResponse = answer.response
            if response.status >= 400:
                raise _error(response.status, await response.read(), f"{method} {path}")
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ApiError(0, type(error).__name__, f"{method} {path}: {error}") from error
        return response


def _path(kind: str, namespace: str | None, name: str | None = None, subresource: str = "") -> str:
    prefix, plural = _COLLECTIONS[kind]
    parts = [prefix, *(["namespaces", namespace] if namespace else []), plural, name or "", subresource]
    return "/".join(part for part in parts if part)


def _resource(path: str) -> str:
    """Resource and subresource of a path, such as ``dporuns/status``."""
    parts = path.split("/")[3 if path.startswith("/api/") else 4 :]
    if parts[0] == "namespaces" and len(parts) > 2:
        parts = parts[2:]
    return "/".join((parts[0], *parts[2:3]))


def _error(status: int, body: bytes, request: str) -> ApiError:
    try:
        answer = json.loads(body)
        reason, message = answer.get("reason") or "Unknown", answer.get("message") or ""
    except (ValueError, AttributeError):
        reason, message = "Unknown", body[:512].decode("utf-8", "replace")
    return ApiError(status, reason, message or request)
