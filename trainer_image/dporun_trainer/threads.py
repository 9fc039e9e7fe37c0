"""How many threads a process computes with, and how they wait for each other. No torch: this must be set before."""

import math
import os
from collections.abc import Mapping

from dporun_api.pod import CPU_REQUEST_VARIABLE
from dporun_trainer import cgroup


def variables(environment: Mapping[str, str], processes: int = 1) -> dict[str, str]:
    """Variables of each of ``processes`` that share this container's CPUs; what ``environment`` sets stays.

    Threads of OpenMP that wait for work turn in a loop, by default. Where other processes need the cores, that takes
    the time from the very thread that is waited for: with both of two cores busy elsewhere, a forward pass of a small
    model took 7 to 27 times the CPU seconds. So they sleep.
    """
    threads = str(max(_cpus(environment) // processes, 1))
    ours = {"OMP_NUM_THREADS": threads, "OMP_WAIT_POLICY": "PASSIVE", "RAYON_NUM_THREADS": threads}
    return {name: environment.get(name, value) for name, value in ours.items()}


def _cpus(environment: Mapping[str, str]) -> int:
    """CPUs to count on: the container's limit; else what was asked for; else all of the node, which may be free."""
    given = cgroup.cpu_limit() or int(environment.get(CPU_REQUEST_VARIABLE) or 0) or math.inf
    return math.ceil(min(given, len(os.sched_getaffinity(0))))
