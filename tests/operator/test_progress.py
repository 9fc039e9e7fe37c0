"""Asking a training pod: a real HTTP server on the other side, well-behaved and hostile."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from dporun_api.results import Metrics, Progress, Stage
from dporun_operator import progress
from dporun_operator.progress import DirectProgress

Serve = Callable[[Callable[[web.Request], Awaitable[web.StreamResponse]]], Awaitable[DirectProgress]]
GOOD = Progress(stage=Stage.TRAINING, step=3, total_steps=9, metrics=Metrics(train_loss=0.5), updated_at=1.0)


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Starts a server with one handler; returns a client for it."""
    runners: list[web.AppRunner] = []
    async with aiohttp.ClientSession() as session:

        async def start(handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> DirectProgress:
            app = web.Application()
            app.router.add_get("/{path:.*}", handler)
            runner = web.AppRunner(app, shutdown_timeout=0.1)
            await runner.setup()
            runners.append(runner)
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            assert site._server is not None
            return DirectProgress(session, port=site._server.sockets[0].getsockname()[1])

        yield start
        for runner in runners:
            await runner.cleanup()


async def test_what_a_newer_trainer_says_more_is_not_in_the_way(serve: Serve) -> None:
    async def handler(_: web.Request) -> web.Response:
        return web.json_response(json.loads(GOOD.to_json()) | {"carbon": 12})

    ask = await serve(handler)
    assert await ask("team-a", "pod", "127.0.0.1") == GOOD


async def test_what_a_pod_says(serve: Serve) -> None:
    async def handler(request: web.Request) -> web.Response:
        assert request.path == "/progress"
        return web.Response(text=GOOD.to_json())

    ask = await serve(handler)
    assert await ask("team-a", "pod", "127.0.0.1") == GOOD


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not json",
        b"[]",
        b"null",
        b'{"version": 2}',
        b'{"step": -1}',
        b'{"percent": 101}',
        b'{"percent": 1e999}',
        b'{"metrics": {"trainLoss": NaN}}',
        b'{"metrics": {"rewardAccuracy": 7}}',
        b'{"stage": "Hacking"}',
        b'{"detail": "' + b"x" * 300 + b'"}',
        b"\xff\xfe",
        b'{"step": ' + b"9" * 5000 + b"}",
        b"[" * 60000,
    ],
    ids=lambda body: repr(body[:24]),
)
async def test_nonsense_is_nothing(serve: Serve, body: bytes) -> None:
    async def handler(_: web.Request) -> web.Response:
        return web.Response(body=body)

    ask = await serve(handler)
    assert await ask("team-a", "pod", "127.0.0.1") is None


async def test_an_endless_answer_is_cut(serve: Serve) -> None:
    sent = 0

    async def handler(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(b" " * 65536)
                sent += 65536
        except (ConnectionError, asyncio.CancelledError):
            return response

    ask = await serve(handler)
    assert await ask("team-a", "pod", "127.0.0.1") is None
    assert sent < 1 << 26


@pytest.mark.parametrize("status", [301, 404, 500])
async def test_no_other_answer_counts_and_no_redirect_is_followed(serve: Serve, status: int) -> None:
    asked = []

    async def handler(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.Response(status=status, headers={"Location": "/elsewhere"}, text=GOOD.to_json())

    ask = await serve(handler)
    assert await ask("team-a", "pod", "127.0.0.1") is None
    assert asked == ["/progress"]


async def test_a_pod_that_does_not_answer_is_not_waited_for(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "TIMEOUT_SECONDS", 0.2)
    given_up = asyncio.Event()

    async def handler(_: web.Request) -> web.Response:
        await given_up.wait()
        return web.Response()

    ask = await serve(handler)
    assert await ask("team-a", "pod", "127.0.0.1") is None
    given_up.set()


async def test_a_pod_without_an_address_is_not_asked(serve: Serve) -> None:
    async def handler(_: web.Request) -> web.Response:
        raise AssertionError

    ask = await serve(handler)
    assert await ask("team-a", "pod", None) is None
    assert await ask("team-a", "pod", "127.0.0.1:1@nowhere") is None


def test_an_answer_that_was_cut_is_not_believed() -> None:
    assert progress.parse(GOOD.to_json().encode()) == GOOD
    assert progress.parse(GOOD.to_json().encode(), complete=False) is None


def test_every_field_of_progress_survives_the_way() -> None:
    full: dict[str, Any] = json.loads(GOOD.model_copy(update={"updated_at": time.time()}).to_json())
    parsed = progress.parse(json.dumps(full).encode())
    assert parsed is not None
    assert json.loads(parsed.to_json()) == full
