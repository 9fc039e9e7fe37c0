"""The operator as a process of its own, outside the cluster, with no more rights than its ServiceAccount."""

import itertools
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from dporun_testing import processes


class OperatorProcess:
    """Starts, kills and asks one operator."""

    def __init__(self, kubeconfig: Path, log: Path, **environment: str):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._log = log
        self._environment = {
            **os.environ,
            "KUBECONFIG": str(kubeconfig),
            "DPORUN_TRAINER_IMAGE": "registry.example.com/dporun/trainer:1.0",
            "DPORUN_PORT": str(self.port),
            "DPORUN_PROGRESS_VIA": "pod",
            "DPORUN_PROGRESS_SECONDS": "1",
            "DPORUN_LEASE_SECONDS": "3",
            **environment,
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the operator and wait until it has looked at the cluster."""
        with self._log.open("ab") as log:
            command = [sys.executable, "-m", "dporun_operator"]
            self._process = processes.start(command, env=self._environment, stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            assert self._process.poll() is None, self.log()
            with suppress(OSError):
                self.ask("/healthz")
                return
            time.sleep(0.1)
        raise AssertionError(f"the operator does not answer:\n{self.log()}")

    def kill(self) -> None:
        """SIGKILL, as when its node dies."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def pause(self) -> None:
        """SIGSTOP, as when its machine sleeps."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def wait(self) -> int:
        """Wait until it ends by itself; returns its exit status."""
        assert self._process is not None
        return self._process.wait(60)

    def stop(self) -> None:
        """SIGTERM; returns when it has ended."""
        if self._process is not None:
            processes.stop(self._process, grace_seconds=30)

    def ask(self, path: str) -> str:
        """GET from the operator's own server."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as response:
            return str(response.read().decode())

    def metric(self, name: str) -> float:
        """The value of one of its metrics."""
        lines = [line.split() for line in self.ask("/metrics").splitlines() if not line.startswith("#")]
        return next(float(value) for key, value in lines if key == name)

    def log(self) -> str:
        """The end of its log."""
        return self._log.read_text(encoding="utf-8")[-6000:] if self._log.exists() else ""


@contextmanager
def operators(kubeconfig: Path, folder: Path) -> Iterator[Callable[..., OperatorProcess]]:
    """Something that starts operators with the settings given; they stop at the end of the block."""
    count = itertools.count()
    with ExitStack() as at_the_end:

        def start(**environment: str) -> OperatorProcess:
            operator = OperatorProcess(kubeconfig, folder / f"operator-{next(count)}.log", **environment)
            at_the_end.callback(lambda: print(operator.log()))
            at_the_end.callback(operator.stop)
            operator.start()
            return operator

        yield start
