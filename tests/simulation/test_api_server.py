"""The API server in memory does what the real one does: see tests/cluster/control_plane/test_api_server.py."""

from datetime import timedelta

import pytest

from dporun_testing.builders import NOW
from dporun_testing.simulated import controllers
from dporun_testing.simulated.api_server import ApiServer
from dporun_testing.simulated.client import Client
from dporun_testing.simulated.script import Script
from dporun_testing.simulated.script_cases import CASES


@pytest.mark.parametrize("name", CASES)
async def test_in_memory(name: str) -> None:
    server = ApiServer(lambda: NOW + timedelta())
    server.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "script"}})

    async def settle() -> None:
        controllers.control(server)

    await CASES[name](Script(Client(server), "script", settle))
