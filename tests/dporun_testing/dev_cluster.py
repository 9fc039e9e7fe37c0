"""The dev cluster's servers, and dev clusters beside it, with a network namespace and a state folder of their own."""

import contextlib
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dporun_testing.paths import DEVCLUSTER
from dporun_testing.processes import processes_of, running

IGNORING_SIGNALS = ["sh", "-c", """trap '' INT TERM HUP; exec "$@" """, "sh"]
"""Begins a command whose signals are ignored, as a shell without job control has background jobs ignore SIGINT."""


@dataclass(frozen=True)
class DevCluster:
    """A dev cluster that may be started."""

    state: Path
    network: list[str]
    """Begins a command that runs in the cluster's network."""

    @contextlib.contextmanager
    def up(self) -> Iterator["subprocess.Popen[str]"]:
        """Run ``devcluster up``, which begins with all signals ignored."""
        with running(
            self._command("up"), grace_seconds=120, env=self._environment, stderr=subprocess.PIPE, text=True
        ) as process:
            yield process

    def down(self) -> None:
        """Stop what runs and remove what it left."""
        subprocess.run(self._command("down"), env=self._environment, check=True)
        shutil.rmtree(self.state, ignore_errors=True)
        self.state.with_suffix(".lock").unlink(missing_ok=True)

    def processes(self) -> list[str]:
        """Command lines of its processes."""
        return list(processes_of(self.state).values())

    def _command(self, command: str) -> list[str]:
        return [*self.network, *IGNORING_SIGNALS, str(DEVCLUSTER / "devcluster"), command]

    @property
    def _environment(self) -> dict[str, str]:
        return {**os.environ, "DPORUN_STATE": str(self.state)}


@contextlib.contextmanager
def dev_cluster() -> Iterator[DevCluster]:
    """A dev cluster that does not run yet, and does not run any more when the block has ended."""
    # Not in pytest's folder: the paths of sockets in it would be too long.
    state = Path("/var/tmp") / f"dporun-{secrets.token_hex(3)}"
    hold = ["unshare", "--net", "sh", "-c", "ip link set lo up && echo ready && exec sleep infinity"]
    with running(hold, stdout=subprocess.PIPE, text=True) as network:
        assert network.stdout.readline() == "ready\n"
        cluster = DevCluster(state, ["nsenter", f"--net=/proc/{network.pid}/ns/net"])
        try:
            yield cluster
        finally:
            cluster.down()


def wait_for_line(up: "subprocess.Popen[str]", text: str) -> None:
    """Read what ``devcluster up`` says until it says ``text``."""
    assert up.stderr
    for line in up.stderr:
        if text in line:
            return
    raise AssertionError(f"`devcluster up` ended without saying {text!r}")


def devcluster(*words: str) -> None:
    """Run a command of the dev cluster, such as ``kill versitygw``.

    Raises:
        subprocess.CalledProcessError: it failed, with what it said.

    """
    subprocess.run([DEVCLUSTER / "devcluster", *words], check=True, capture_output=True, text=True)
