"""A client that plays a script on an API server, the real one or the one in memory, and tells what is to be seen."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from dporun_testing.simulated import kinds
from dporun_testing.simulated.api_server import Body

MANAGER = "dporun-operator"
SECONDS = 60


@dataclass(frozen=True)
class Answer:
    """Status code and body."""

    code: int
    body: Any

    @property
    def words(self) -> str:
        """``ok``, or code and reason of a refusal."""
        return "ok" if self.code < 400 else f"{self.code} {self.body['reason']}"


class Script:
    """Requests of a client, in one namespace.

    Args:
        api: a client of the real server, or of the one in memory.
        namespace: for every object.
        settle: awaited between two looks at what changes by itself.

    """

    def __init__(self, api: Any, namespace: str, settle: Callable[[], Awaitable[None]]):
        self._api = api
        self.namespace = namespace
        self._settle = settle

    async def create(self, body: Body) -> Answer:
        return await self._ask("POST", body["kind"], body=body)

    async def get(self, kind: str, name: str) -> dict[str, Any] | None:
        answer = await self._ask("GET", kind, name)
        return None if answer.code == 404 else answer.body

    async def list(self, kind: str, label: str = "") -> list[dict[str, Any]]:
        query = {"labelSelector": label} if label else {}
        items: list[dict[str, Any]] = (await self._ask("GET", kind, query=query)).body["items"]
        return items

    async def apply(self, body: Body, *, subresource: str = "") -> Answer:
        query = {"fieldManager": MANAGER, "force": "true"}
        kind, name = body["kind"], body["metadata"]["name"]
        return await self._ask("PATCH", kind, name, subresource, query, body, "application/apply-patch+yaml")

    async def merge(self, kind: str, name: str, patch: Mapping[str, Any], *, subresource: str = "") -> Answer:
        return await self._ask("PATCH", kind, name, subresource, {}, patch, "application/merge-patch+json")

    async def json_patch(self, kind: str, name: str, *operations: Mapping[str, Any]) -> Answer:
        return await self._ask("PATCH", kind, name, "", {}, list(operations), "application/json-patch+json")

    async def replace(self, body: Body) -> Answer:
        return await self._ask("PUT", body["kind"], body["metadata"]["name"], body=body)

    async def delete(
        self, kind: str, name: str, propagation: str = "Background", *, uid: str = "", grace: int | None = None
    ) -> Answer:
        options: dict[str, Any] = {"propagationPolicy": propagation}
        if uid:
            options["preconditions"] = {"uid": uid}
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        return await self._ask("DELETE", kind, name, body=options)

    async def bind(self, pod: str) -> None:
        """Give a pod a node."""
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": pod, "namespace": self.namespace},
            "target": {"apiVersion": "v1", "kind": "Node", "name": "played"},
        }
        answer = await self._ask("POST", "Pod", pod, "binding", body=binding)
        assert answer.words == "ok", answer.body

    async def eventually(self, question: Callable[[], Awaitable[Any]]) -> Any:
        """Ask until the answer is true."""
        deadline = time.monotonic() + SECONDS
        while not (found := await question()):
            assert time.monotonic() < deadline, "it does not happen"
            await self._settle()
        return found

    async def gone(self, kind: str, name: str) -> None:
        """Wait until there is no such object."""

        async def is_gone() -> bool:
            return await self.get(kind, name) is None

        await self.eventually(is_gone)

    async def being_deleted(self, kind: str, name: str) -> dict[str, Any]:
        """Wait until an object is being deleted."""

        async def found() -> dict[str, Any] | None:
            body = await self.get(kind, name)
            return body if body and "deletionTimestamp" in body["metadata"] else None

        body: dict[str, Any] = await self.eventually(found)
        return body

    async def stays(self, kind: str, name: str) -> dict[str, Any]:
        """Give the controllers time, then an object must still be there."""
        for _ in range(4):
            await self._settle()
        found = await self.get(kind, name)
        assert found is not None
        return found

    async def _ask(
        self,
        method: str,
        kind: str,
        name: str = "",
        subresource: str = "",
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
    ) -> Answer:
        served = kinds.BY_NAME[kind]
        root, _, plural = served.collection.rpartition("/")
        place = f"/namespaces/{self.namespace}" if served.namespaced else ""
        path = "/".join(part for part in (f"{root}{place}/{plural}", name, subresource) if part)
        request = await self._api.param_serialize(
            method, path, query_params=list((query or {}).items()), header_params={"Content-Type": content_type},
            body=body, auth_settings=["BearerToken"],
        )  # fmt: skip
        answer = await self._api.call_api(*request)
        return Answer(answer.response.status, json.loads(await answer.response.read()))


async def a_moment() -> None:
    """What a real control plane needs between two looks."""
    await asyncio.sleep(0.5)


Case = Callable[[Script], Awaitable[None]]


class Cases(dict[str, Case]):
    """Scripts by name; a decorator that adds one."""

    def __call__(self, script: Case) -> Case:
        self[script.__name__] = script
        return script
