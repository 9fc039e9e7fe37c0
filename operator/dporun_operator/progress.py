"""Reads the progress of a training pod. Its answer is untrusted: size, types and ranges are checked."""

import logging
from collections.abc import Awaitable, Callable

import aiohttp
from pydantic import ValidationError

from dporun_api.pod import PROGRESS_PATH, STATUS_PORT
from dporun_api.results import Progress
from dporun_operator.cluster import Cluster
from dporun_operator.errors import ApiError

log = logging.getLogger(__name__)

MAX_BYTES = 64 * 1024
TIMEOUT_SECONDS = 5.0

Ask = Callable[[str, str, str | None], Awaitable[Progress | None]]
"""(namespace, pod, IP address) → the progress; None when the pod does not answer, or not with a valid Progress."""


def parse(body: bytes, *, complete: bool = True) -> Progress | None:
    """Read the body of an answer; None when it is too long or no valid Progress."""
    if not complete or len(body) > MAX_BYTES:
        log.warning("progress of more than %d bytes ignored", MAX_BYTES)
        return None
    try:
        return Progress.model_validate_json(body, extra="ignore")  # a newer image may say more
    except ValidationError as error:
        log.warning("invalid progress ignored: %s", error.errors(include_url=False, include_input=False)[:3])
        return None


class DirectProgress:
    """Asks the pod itself; for an operator inside the cluster."""

    def __init__(self, session: aiohttp.ClientSession, *, port: int = STATUS_PORT):
        self._session = session
        self._port = port

    async def __call__(self, namespace: str, pod: str, address: str | None) -> Progress | None:
        """Ask pod ``pod`` at its IP ``address``."""
        if not address:
            return None
        host = f"[{address}]" if ":" in address else address
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
        try:
            async with self._session.get(
                f"http://{host}:{self._port}{PROGRESS_PATH}", timeout=timeout, allow_redirects=False
            ) as response:
                if response.status != 200:
                    return None
                body = await _read(response.content, MAX_BYTES + 1)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            log.debug("pod %s/%s does not answer: %s", namespace, pod, error)
            return None
        return parse(body)


class ProxiedProgress:
    """Asks through the API server; for an operator outside the cluster."""

    def __init__(self, cluster: Cluster, *, port: int = STATUS_PORT):
        self._cluster = cluster
        self._port = port

    async def __call__(self, namespace: str, pod: str, address: str | None) -> Progress | None:  # noqa: ARG002
        """Ask pod ``pod``; its address is not needed."""
        try:
            answer = await self._cluster.proxy_get(namespace, pod, self._port, PROGRESS_PATH, limit=MAX_BYTES)
        except ApiError as error:
            log.debug("pod %s/%s does not answer: %s", namespace, pod, error)
            return None
        return parse(answer.body, complete=answer.complete)


async def _read(stream: aiohttp.StreamReader, limit: int) -> bytes:
    body = b""
    while len(body) < limit and (chunk := await stream.read(limit - len(body))):
        body += chunk
    return body
