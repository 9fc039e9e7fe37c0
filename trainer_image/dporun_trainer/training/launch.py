"""Start the training processes of a pod, pass signals on to them, and conclude how they ended."""

import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dporun_api.pod import MAIN_ADDRESS_VARIABLE, NODE_INDEX_VARIABLE, RENDEZVOUS_PORT, SecretPrefix
from dporun_api.results import Outcome
from dporun_api.run_config import RunConfig
from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer import disk, gpu_errors, threads
from dporun_trainer.cgroup import oom_kills
from dporun_trainer.driver import has_gpu
from dporun_trainer.errors import RunError
from dporun_trainer.progress import Silence
from dporun_trainer.run_folder import RunFolder
from dporun_trainer.training import ranks

log = logging.getLogger(__name__)

_TAIL_LINES = 300
"""Lines of output to judge by: NCCL writes many before it ends a process."""
_DEFAULT_ENVIRONMENT = {"PYTORCH_ALLOC_CONF": "expandable_segments:True"}
"""Batches differ in length, so fixed segments of GPU memory fragment; on the CPU it means nothing."""
_TELLING_LINES = 64
"""First lines that say why a GPU failed, kept as well: eight ranks' stacks push them out of the last ones."""
_AFTER_FAILURE_SECONDS = 20
"""How long the other processes may take to end by themselves when one has failed."""
AFTER_THE_OPERATOR_SECONDS = 120
"""How much later than the operator the pod itself calls its processes stalled: for when there is no operator."""


@dataclass(frozen=True)
class Ended:
    """How the processes that were started ended.

    Attributes:
        log_tail: last lines of their output.
        telling: the first lines of it that say why a GPU failed.
        exit_code: of the first of them, which started the others.
        asked_at: Unix time at which they were asked to stop; None when they were not.
        stalled: seconds without a heartbeat after which they were killed; None when they were not.

    """

    log_tail: str
    telling: str
    exit_code: int
    asked_at: float | None
    stalled: float | None


def node_rank(environment: Mapping[str, str], config: RunConfig) -> int:
    """Index of this pod, as the Indexed Job gives it.

    Raises:
        RunError: it is none of this run's nodes.

    """
    text = environment.get(NODE_INDEX_VARIABLE, "0")
    if not text.isdecimal() or int(text) >= config.topology.nodes:
        raise RunError(
            Reason.INVALID_SPEC, f"{NODE_INDEX_VARIABLE} is {text}, but the run has {config.topology.nodes} nodes"
        )
    return int(text)


def accelerate_command(config: RunConfig, arguments: Sequence[str], *, node: int, address: str, port: int) -> list[str]:
    """Command that starts the training processes of this pod: ``python -m`` with ``arguments``, module first.

    Every flag is explicit; PET_* variables do nothing.
    """
    topology = config.topology
    flags: dict[str, object] = {
        "--num_processes": topology.world_size,
        "--num_machines": topology.nodes,
        "--machine_rank": node,
        "--main_process_ip": address,
        "--main_process_port": port,
        "--rdzv_backend": "static",
        "--mixed_precision": "no",
        "--dynamo_backend": "no",
        "--deepspeed_multinode_launcher": "standard",
        "--zero_stage": topology.deepspeed.zero_stage,
        "--num_cpu_threads_per_process": threads.variables(os.environ, topology.processes_per_node)["OMP_NUM_THREADS"],
    }
    words = [word for flag, value in flags.items() for word in (flag, str(value))]
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--use_deepspeed", "--same_network"]
    return [*launcher, *words, "--module", *arguments]


def training_environment(config: RunConfig, environment: Mapping[str, str], ends: Path) -> dict[str, str]:
    """Environment of the training processes: no network but each other, and enough time to save when stopped.

    What the run sets wins over what the administrator set for every pod, and that over our defaults.
    """
    grace = max(config.grace_period_seconds - max(10, config.grace_period_seconds // 10), 5)
    kept = {name: value for name, value in offline(environment).items() if not name.startswith("PET_")}
    ours = threads.variables(kept, config.topology.processes_per_node)
    return (
        ours
        | kept
        | config.topology.environment
        | {ranks.FOLDER_VARIABLE: str(ends), "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(grace)}
    )


def offline(environment: Mapping[str, str]) -> dict[str, str]:
    """Environment of a process that uses what prepare fetched, without network access and without a cloud's keys."""
    fixed = {
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "DO_NOT_TRACK": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "TQDM_DISABLE": "1",
        "PYTHONUNBUFFERED": "1",
    }
    kept = {name: value for name, value in environment.items() if not name.startswith((SecretPrefix.ARCHIVE, "AWS_"))}
    return {**_DEFAULT_ENVIRONMENT, **kept, **fixed} | ({} if has_gpu() else {"DS_ACCELERATOR": "cpu"})


def train(
    config: RunConfig, folder: RunFolder, arguments: Sequence[str], *, node: int, stop: threading.Event
) -> Outcome:
    """Start this pod's training processes, wait for them and conclude how they ended.

    Args:
        config: what to do.
        folder: of the run.
        arguments: module of the training process, and its arguments.
        node: index of this pod.
        stop: when it is set, the processes save and end.

    Raises:
        RunError: the address of the first node is not known.

    """
    nodes = config.topology.nodes
    address = os.environ.get(MAIN_ADDRESS_VARIABLE, "127.0.0.1" if nodes == 1 else "")
    if not address:
        raise RunError(Reason.INVALID_SPEC, f"{MAIN_ADDRESS_VARIABLE} is not set, but the run has {nodes} nodes")
    port = RENDEZVOUS_PORT if nodes > 1 else _free_port()
    per_node = config.topology.processes_per_node
    with tempfile.TemporaryDirectory(prefix="dporun-ranks-") as name:
        ends = Path(name)
        command = accelerate_command(config, arguments, node=node, address=address, port=port)
        oom_kills_before = oom_kills()
        limit = stall_limit(config) if node == 0 else None  # the process that keeps the progress is here
        ended = run_process(command, training_environment(config, os.environ, ends), folder, stop, ends, limit)
        evidence = ranks.Evidence(
            ranks=range(node * per_node, (node + 1) * per_node),
            log_tail=ended.log_tail,
            telling=ended.telling,
            exit_code=ended.exit_code,
            asked_at=ended.asked_at,
            stalled=ended.stalled,
            memory_ran_out=oom_kills() > oom_kills_before,
            disk_is_full=disk.takes_nothing(folder.path),
        )
        return ranks.fold(ranks.read(ends), evidence)


def stall_limit(config: RunConfig) -> float:
    """Seconds without a heartbeat after which the pod itself ends its processes."""
    return config.stall_seconds + AFTER_THE_OPERATOR_SECONDS


def run_process(
    command: Sequence[str],
    environment: Mapping[str, str],
    folder: RunFolder,
    stop: threading.Event,
    ends: Path | None = None,
    stall_seconds: float | None = None,
) -> Ended:
    """Run a command until it ends, passing its output and our stop on.

    Args:
        command: to run; the processes that it starts must die with it.
        environment: of the command.
        folder: of the run, whose progress shows that the command is alive.
        stop: when it is set, the command is asked to stop.
        ends: folder in which training processes leave how they ended; when one failed, all are ended after a while.
        stall_seconds: time without a heartbeat after which the command is killed; None for any.

    """
    process = subprocess.Popen(
        command, env=dict(environment), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    tail: deque[str] = deque(maxlen=_TAIL_LINES)
    telling: list[str] = []
    reader = threading.Thread(target=_pass_on, args=(process, tail, telling), daemon=True)
    reader.start()
    asked_at: float | None = None
    stalled: float | None = None
    failed_at: float | None = None
    silence = Silence(folder.progress)
    while process.poll() is None:
        if stop.is_set() and asked_at is None:
            log.info("asked to stop")
            asked_at = time.time()
            process.terminate()
        if stall_seconds is not None and stalled is None and silence.seconds() > stall_seconds:
            stalled = stall_seconds
            os.killpg(process.pid, signal.SIGKILL)
        if ends is not None and failed_at is None and any(end.failure for end in ranks.read(ends)):
            failed_at = time.monotonic()
        if failed_at is not None and time.monotonic() - failed_at > _AFTER_FAILURE_SECONDS:
            os.killpg(process.pid, signal.SIGKILL)
        # Not stop.wait: a signal handler that sets the event while this thread has the event's lock never returns.
        time.sleep(0.2)
    reader.join(timeout=5)
    return Ended("".join(tail), "".join(telling), process.returncode, asked_at, stalled)


def _pass_on(process: subprocess.Popen[bytes], tail: deque[str], telling: list[str]) -> None:
    for line in process.stdout or ():
        text = line.decode(errors="replace")
        tail.append(text)
        if len(telling) < _TELLING_LINES and gpu_errors.tells(text):
            telling.append(text)
        sys.stdout.write(text)
        sys.stdout.flush()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
