"""The real API server and its controllers do what the ones in memory do, on which the simulation runs."""

import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes.aio import client, config

from dporun_testing.kubectl import temporary_namespace
from dporun_testing.simulated import script_cases, script_job_cases
from dporun_testing.simulated.script import Script, a_moment

CASES = script_cases.case | script_job_cases.case
pytestmark = pytest.mark.cluster


@pytest.fixture
async def api(cluster: Path) -> AsyncIterator[Any]:
    await config.load_kube_config(str(cluster))
    async with client.ApiClient() as opened:
        yield opened


@pytest.mark.parametrize("name", CASES)
async def test_on_the_real_one(name: str, api: Any) -> None:
    with temporary_namespace(f"script-{secrets.token_hex(4)}") as namespace:
        await CASES[name](Script(api, namespace, a_moment))
