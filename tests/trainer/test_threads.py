"""As many threads as there are CPUs for a process, which sleep while they wait."""

import os
import subprocess
import sys

import pytest

from dporun_trainer import cgroup
from dporun_trainer.threads import variables


@pytest.mark.parametrize(
    ("limit", "asked", "processes", "threads"),
    [
        (None, None, 1, 96),
        (None, "8", 1, 8),
        (None, "200", 1, 96),
        (1.5, "1", 1, 2),
        (16.0, "8", 8, 2),
        (2.0, None, 8, 1),
        (200.0, None, 1, 96),
    ],
)
def test_threads_follow_the_cpus(
    monkeypatch: pytest.MonkeyPatch, limit: float | None, asked: str | None, processes: int, threads: int
) -> None:
    monkeypatch.setattr(cgroup, "cpu_limit", lambda: limit)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(96)))
    environment = {"DPORUN_CPU_REQUEST": asked} if asked else {}
    assert variables(environment, processes)["OMP_NUM_THREADS"] == str(threads)


def test_what_somebody_set_stays() -> None:
    set_by_hand = {"OMP_NUM_THREADS": "3", "OMP_WAIT_POLICY": "ACTIVE", "RAYON_NUM_THREADS": "2"}
    assert variables(set_by_hand, 2) == set_by_hand


def test_a_command_s_torch_obeys() -> None:
    """The variables must be there before torch is imported: OpenMP reads them once."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")}
    code = (
        "import sys, os; from dporun_trainer.__main__ import main\n"
        "try: main(['merge', '--help'])\n"
        "except SystemExit: import torch\n"
        "print(torch.get_num_threads(), os.environ['OMP_WAIT_POLICY'], file=sys.stderr)"
    )
    command = [sys.executable, "-c", code]
    ended = subprocess.run(
        command, env=environment | {"DPORUN_CPU_REQUEST": "1"}, capture_output=True, text=True, check=True
    )
    assert ended.stderr.split()[-2:] == ["1", "PASSIVE"]
