"""A test leaves no process running, however it and pytest end."""

import signal
import subprocess
from pathlib import Path

import pytest

from dporun_testing.dev_cluster import IGNORING_SIGNALS
from dporun_testing.inner_pytest import ENVIRONMENT, inner_command, inner_pytest
from dporun_testing.kubectl import eventually
from dporun_testing.processes import processes_of, running

SERVERS = """
import subprocess
import time
from pathlib import Path
from dporun_testing import s3_server
from dporun_testing.processes import running

def test_with_servers(tmp_path):
    sleeper = tmp_path / "sleeper"
    sleeper.symlink_to("/bin/sleep")
    with s3_server.serve(tmp_path / "s3"), running([sleeper, "600"]):
        Path("ready").touch()
"""
FAILING = SERVERS + "        assert False\n"
WAITING = SERVERS + "        time.sleep(600)\n"


def test_a_failing_test_stops_its_servers(tmp_path: Path) -> None:
    done = inner_pytest(tmp_path, FAILING)
    assert (tmp_path / "ready").exists(), done.stdout
    assert "1 failed" in done.stdout
    assert processes_of(tmp_path / "basetemp") == {}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_tests_that_are_stopped_stop_their_servers(tmp_path: Path, number: signal.Signals) -> None:
    """Started with SIGINT and SIGTERM ignored, as a background job may be; with SIGKILL the kernel does it."""
    command = [*IGNORING_SIGNALS, *inner_command(tmp_path, WAITING)]
    with running(command, env=ENVIRONMENT, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as inner:
        eventually((tmp_path / "ready").exists, seconds=60, what="the servers run")
        assert len(processes_of(tmp_path / "basetemp")) == 3, "pytest, the S3 server and the sleeper"
        inner.send_signal(number)
        inner.wait(30)
    eventually(lambda: not processes_of(tmp_path / "basetemp"), seconds=10, what="nothing is left")


def test_a_process_that_a_slow_test_leaves_is_an_error_and_ended(tmp_path: Path) -> None:
    done = inner_pytest(
        tmp_path,
        """
        import subprocess
        import pytest

        @pytest.mark.slow
        def test_that_forgets(tmp_path):
            sleeper = tmp_path / "sleeper"
            sleeper.symlink_to("/bin/sleep")
            subprocess.Popen([sleeper, "600"], start_new_session=True)
        """,
    )
    assert "still running" in done.stdout, done.stdout
    assert "1 passed" in done.stdout
    assert "1 error" in done.stdout
    assert processes_of(tmp_path / "basetemp") == {}
