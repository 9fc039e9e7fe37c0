"""Processes that tests start, none of which outlives the test, however that ends."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

_PR_SET_PDEATHSIG = 1


def start(command: Sequence[str | Path], **options: Any) -> "subprocess.Popen[Any]":
    """Start a process which the kernel of Linux kills with the one that started it: pytest may be killed, too."""
    libc = ctypes.CDLL(None)

    def die_with_parent() -> None:
        if sys.platform == "linux":
            libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))

    # Safe with threads: it calls the kernel and takes no lock.
    return subprocess.Popen(command, preexec_fn=die_with_parent, **options)  # noqa: PLW1509


class PolledEvent(threading.Event):
    """An event that a signal handler sets; waiting for it in the same thread fails.

    Both take the event's lock: a handler that comes while its own thread has it never returns.
    """

    def wait(self, _timeout: float | None = None) -> bool:
        raise AssertionError("the handler of a signal could hang here")


@contextlib.contextmanager
def running(
    command: Sequence[str | Path], *, grace_seconds: float = 20, **options: Any
) -> Iterator["subprocess.Popen[Any]"]:
    """Run a process until the block ends, if it does not end before."""
    process = start(command, **options)
    try:
        yield process
    finally:
        stop(process, grace_seconds)


def stop(process: "subprocess.Popen[Any]", grace_seconds: float = 20) -> None:
    """Ask a process to end, kill it when it does not, and wait for its end."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(grace_seconds)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()
    if process.stdout:
        process.stdout.close()


def processes_of(folder: Path) -> dict[int, str]:
    """Command lines, by process id, of the processes that name ``folder`` or something in it."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended
            command = _command(entry)
            if str(folder) in command and int(entry.name) != os.getpid():
                found[int(entry.name)] = command
    return found


def _command(entry: Path) -> str:
    """Command line of a process; one that has just been started may have none for a moment, but has a program."""
    for _ in range(100):
        if command := (entry / "cmdline").read_bytes():
            break
        (entry / "exe").readlink()  # an error for a thread of the kernel, and for what has ended
        time.sleep(0.01)
    return command.replace(b"\0", b" ").decode(errors="replace")


@contextlib.contextmanager
def nothing_left(folder: Path) -> Iterator[None]:
    """Kill what the block started and left running, as far as it names ``folder``; that it did so is an error."""
    before = processes_of(folder)
    try:
        yield
    finally:
        left = {pid: command for pid, command in processes_of(folder).items() if pid not in before}
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    assert not left, f"still running: {left}"
