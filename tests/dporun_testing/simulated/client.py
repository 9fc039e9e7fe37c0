"""What stands in for the client library: the requests of ``Cluster`` go to the in-memory API server."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from dporun_testing.simulated.answers import Refused
from dporun_testing.simulated.api_server import ApiServer


@dataclass(frozen=True)
class Request:
    """A request of a client."""

    method: str
    path: str
    query: Mapping[str, str]
    body: Any
    content_type: str

    @property
    def writes(self) -> bool:
        return self.method != "GET"

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


class Response:
    """As much of an HTTP response as ``Cluster`` reads."""

    def __init__(self, status: int, body: bytes):
        self.status = status
        self.content = asyncio.StreamReader()
        self.content.feed_data(body)
        self.content.feed_eof()

    async def read(self) -> bytes:
        return await self.content.read()

    def close(self) -> None:
        pass


@dataclass(frozen=True)
class _Answer:
    response: Response


Carry = Callable[[Request, Callable[[], Any]], Awaitable[Any]]
"""The way of a request to the server and back: it may be lost on either, see ``faults``."""


async def deliver(_: Request, act: Callable[[], Any]) -> Any:
    """Nothing is lost."""
    return act()


class Client:
    """As much of ``kubernetes.aio.client.ApiClient`` as ``Cluster`` uses."""

    def __init__(self, server: ApiServer, carry: Carry = deliver):
        self._server = server
        self._carry = carry

    async def param_serialize(
        self,
        method: str,
        path: str,
        *,
        query_params: list[tuple[str, str]],
        header_params: Mapping[str, str],
        body: Any,
        auth_settings: list[str],
    ) -> tuple[Request]:
        """Build a request."""
        assert auth_settings == ["BearerToken"]
        return (Request(method, path, dict(query_params), body, header_params["Content-Type"]),)

    async def call_api(self, request: Request, *, _request_timeout: object = None) -> _Answer:
        """Send it."""

        def act() -> Any:
            return self._server.request(request.method, request.path, request.query, request.body, request.content_type)

        try:
            status, answer = 200, await self._carry(request, act)
        except Refused as refused:
            status, answer = refused.code, refused.body
        return _Answer(Response(status, json.dumps(answer).encode()))
