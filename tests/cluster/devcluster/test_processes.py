"""Processes are stopped by id and start time, so that a recycled id is never signalled."""

import dataclasses
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dporun_testing.paths import DEVCLUSTER
from dporun_testing.processes import running

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the dev cluster runs on Linux")


@pytest.fixture
def processes_module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(DEVCLUSTER))
    from node import processes

    return processes


@pytest.fixture
def bystander() -> Iterator["subprocess.Popen[bytes]"]:
    """A process that nobody may touch."""
    with running(["sleep", "600"]) as process:
        yield process


@pytest.fixture
def processes(processes_module: ModuleType, tmp_path: Path) -> Iterator[Any]:
    """The processes of one cluster, of which none is left at the end."""
    made = processes_module.Processes(tmp_path / "run", tmp_path / "log")
    yield made
    for file in made.run.glob("*.pid"):
        made.stop(file.stem, grace_seconds=0)


def test_start_and_stop(processes_module: ModuleType, processes: Any) -> None:
    started = processes.start("sleeper", ["sleep", "600"], {})
    assert processes.get("sleeper") == started
    assert processes.start("sleeper", ["sleep", "600"], {}) == started, "a running process is left alone"
    assert processes.stop("sleeper")
    assert processes_module.Identity.of(started.pid) != started
    assert processes.get("sleeper") is None
    assert not processes.stop("sleeper"), "stopping again is no error"


def test_an_interrupt_comes_after_the_process_is_noted(processes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the process would run on: `up` stops what has been noted."""
    start = subprocess.Popen

    def interrupted(*arguments: Any, **options: Any) -> "subprocess.Popen[bytes]":
        started = start(*arguments, **options)
        signal.raise_signal(signal.SIGINT)
        return started

    monkeypatch.setattr(subprocess, "Popen", interrupted)
    with pytest.raises(KeyboardInterrupt):
        processes.start("sleeper", ["sleep", "600"], {})
    assert processes.get("sleeper") is not None


def test_a_recycled_id_is_not_ours(
    processes_module: ModuleType, tmp_path: Path, bystander: subprocess.Popen[bytes]
) -> None:
    processes = processes_module.Processes(tmp_path, tmp_path)
    now = processes_module.Identity.of(bystander.pid)
    for then in (
        dataclasses.replace(now, start_time=now.start_time - 1),
        dataclasses.replace(now, boot_id="before the last reboot"),
    ):
        (tmp_path / "etcd.pid").write_text(json.dumps(dataclasses.asdict(then)))
        assert processes.get("etcd") is None
        assert not processes.stop("etcd")
        processes_module.kill(then, grace_seconds=0)
        assert bystander.poll() is None


def test_sigterm_that_is_ignored_is_followed_by_sigkill(processes: Any) -> None:
    processes.start(
        "stubborn", ["sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 1; done"], {"PATH": "/usr/bin:/bin"}
    )
    while "deaf" not in processes.log("stubborn").read_text():
        assert processes.get("stubborn")
    processes.stop("stubborn", grace_seconds=0.1)
    assert processes.get("stubborn") is None


def test_a_process_that_died_is_not_running(processes_module: ModuleType, tmp_path: Path) -> None:
    processes = processes_module.Processes(tmp_path, tmp_path)
    (tmp_path / "broken.pid").write_text("{")
    assert processes.get("broken") is None
    with subprocess.Popen(["true"]) as dead:
        dead_before_waiting = dead.pid
        while processes_module.Identity.of(dead_before_waiting) is not None:
            pass
    assert processes_module.Identity.of(dead_before_waiting) is None


def test_only_our_shims_are_found(processes_module: ModuleType, bystander: subprocess.Popen[bytes]) -> None:
    program = Path("/proc", str(bystander.pid), "exe").readlink()
    found = list(processes_module.running_programs(program, "600"))
    assert bystander.pid in [process.pid for process in found]
    assert bystander.pid not in [process.pid for process in processes_module.running_programs(program, "601")]
    assert not list(processes_module.running_programs(Path("/no/such/program"), "600"))


def test_programs_that_run_are_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(DEVCLUSTER))
    from node import tools

    program = tmp_path / "bin" / "sleep"
    program.parent.mkdir()
    shutil.copy("/bin/sleep", program)
    assert not tools.runs_from(program.parent)
    with running([program, "600"]):
        assert tools.runs_from(program.parent)
