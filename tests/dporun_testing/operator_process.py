"""The operator as a process of its own, outside the cluster, with no more rights than its ServiceAccount."""

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from dporun_testing import processes
from dporun_testing.kubectl import get, kubectl
from dporun_testing.ports import free_port

ERRORS = 'dporun_operator_reconciliations_total{result="error"}'
HELD = "dporun_operator_lease_held"


class OperatorProcess:
    """Starts, kills and asks one operator; ``through`` is the start of a command that runs the rest of it."""

    def __init__(self, kubeconfig: Path, log: Path, *, through: Sequence[str | Path] = (), **environment: str):
        self.port = free_port()
        self._log = log
        self._command = [*through, sys.executable, "-m", "dporun_operator"]
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
            self._process = processes.start(self._command, env=self._environment, stdout=log, stderr=log)
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
        """The value of one of its metrics; without labels, the sum over all of them."""
        values = self.metrics()
        assert name.partition("{")[0] in values, f"no metric {name}"
        return sum(value for key, value in values.items() if name in {key, key.partition("{")[0]})

    def metrics(self) -> dict[str, float]:
        """All of its metrics; one that has labels is there without them, too, and 0 then."""
        lines = self.ask("/metrics").splitlines()
        typed = {line.split()[2]: 0.0 for line in lines if line.startswith("# TYPE")}
        found = (line.rsplit(maxsplit=1) for line in lines if not line.startswith("#"))
        return typed | {key: float(value) for key, value in found}

    def requests(self) -> Counter[str]:
        """What it has asked of the API server so far, without the lease, such as ``PATCH dporuns/status``."""
        pattern = re.compile(r'dporun_operator_api_requests_total\{method="(\w+)",resource="([\w/]+)"\}')
        found = ((pattern.fullmatch(key), value) for key, value in self.metrics().items())
        return Counter({f"{match[1]} {match[2]}": int(value) for match, value in found if match})

    def log(self) -> str:
        """The end of its log."""
        return self._log.read_text(encoding="utf-8")[-6000:] if self._log.exists() else ""


@contextmanager
def operators(kubeconfig: Path, folder: Path) -> Iterator[Callable[..., OperatorProcess]]:
    """Something that starts operators with the settings given; they stop at the end of the block."""
    count = itertools.count()
    with ExitStack() as at_the_end:

        def start(*, through: Sequence[str | Path] = (), **environment: str) -> OperatorProcess:
            log = folder / f"operator-{next(count)}.log"
            operator = OperatorProcess(kubeconfig, log, through=through, **environment)
            at_the_end.callback(lambda: print(operator.log()))
            at_the_end.callback(operator.stop)
            operator.start()
            return operator

        yield start


@contextmanager
def without_right_on(resource: str) -> Iterator[None]:
    """Take the rights on ``resource`` away from the operator's ServiceAccount, and give them back."""
    role = get("clusterrole", "dporun-operator", "")
    rest = [rule for rule in role["rules"] if resource not in rule["resources"]]
    assert len(rest) == len(role["rules"]) - 1
    patch = ("patch", "clusterrole", "dporun-operator", "--type=merge", "-p")
    kubectl(*patch, json.dumps({"rules": rest}))
    try:
        yield
    finally:
        kubectl(*patch, json.dumps({"rules": role["rules"]}))
