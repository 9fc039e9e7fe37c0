"""`devcluster up` leaves nothing running when it does not reach its end.

These clusters live in a network namespace and a state folder of their own, beside the one that other tests use.
"""

import os
import secrets
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from dporun_testing.paths import DEVCLUSTER

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(os.environ.get("CLUSTER") == "current", reason="about the dev cluster, not about yours"),
]


@pytest.fixture
def state() -> Iterator[Path]:
    folder = Path("/var/tmp") / f"dporun-{secrets.token_hex(3)}"
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.with_suffix(".lock").unlink(missing_ok=True)


@pytest.fixture
def up(state: Path) -> Iterator[subprocess.Popen[str]]:
    environment = {**os.environ, "DPORUN_STATE": str(state)}
    with subprocess.Popen(
        ["unshare", "--net", "sh", "-c", f"ip link set lo up && exec {DEVCLUSTER} up"],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        process.terminate()


def wait_for_line(up: subprocess.Popen[str], text: str) -> None:
    assert up.stderr
    for line in up.stderr:
        if text in line:
            return
    pytest.fail(f"`devcluster up` ended without saying {text!r}")


def processes_of(state: Path) -> list[str]:
    listing = subprocess.run(["ps", "-eww", "-o", "pid,args"], capture_output=True, text=True, check=True).stdout
    return [line for line in listing.splitlines() if str(state) in line]


def test_an_interrupted_start_leaves_nothing_running(state: Path, up: subprocess.Popen[str]) -> None:
    wait_for_line(up, "starting kube-scheduler")
    programs = " ".join(processes_of(state))
    assert "/etcd " in programs
    assert "/kube-apiserver " in programs
    up.send_signal(signal.SIGINT)
    up.communicate()
    assert up.returncode != 0
    assert processes_of(state) == []
    assert not list(Path("/sys/fs/cgroup").glob(f"**/{state.name}"))


def test_nobody_reading_its_output_does_not_keep_it_from_stopping(state: Path, up: subprocess.Popen[str]) -> None:
    wait_for_line(up, "starting kube-scheduler")
    assert up.stderr
    up.stderr.close()
    up.terminate()
    assert up.wait() != 0
    assert processes_of(state) == []


def test_a_failed_start_says_why_and_leaves_nothing_running(state: Path, request: pytest.FixtureRequest) -> None:
    (state / "etcd").mkdir(parents=True)
    (state / "etcd" / "member").write_text("not a folder")
    up: subprocess.Popen[str] = request.getfixturevalue("up")
    _, said = up.communicate()
    assert up.returncode == 1
    assert "etcd ended; the end of" in said
    assert "not a directory" in said
    assert processes_of(state) == []
