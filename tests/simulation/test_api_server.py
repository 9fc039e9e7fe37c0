"""The API server in memory does what the real one does: see tests/cluster/control_plane/test_api_server.py."""

import pytest

from dporun_testing.builders import NOW
from dporun_testing.simulated import controllers, script_cases, script_job_cases
from dporun_testing.simulated.api_server import ApiServer
from dporun_testing.simulated.client import Client
from dporun_testing.simulated.jobs import JobController
from dporun_testing.simulated.script import Script

CASES = script_cases.case | script_job_cases.case


@pytest.mark.parametrize("name", CASES)
async def test_in_memory(name: str) -> None:
    server = ApiServer(lambda: NOW)
    jobs = JobController(server, lambda: NOW)
    server.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "script"}})

    async def settle() -> None:
        controllers.control(server)
        jobs.look()

    await CASES[name](Script(Client(server), "script", settle))
