"""``train``: PID 1 of the training pod. It trains, then evaluates and reports, each in processes of its own."""

import argparse
import math
import os
import sys
import threading
import time
from pathlib import Path

from dporun_api.pod import NODE_INDEX_VARIABLE, NODE_NAME_VARIABLE, STATUS_PORT
from dporun_api.results import Outcome, OutcomeState, Stage
from dporun_api.run_config import RunConfig
from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer import disk, gpu_errors, nvml, threads
from dporun_trainer.cgroup import oom_kills
from dporun_trainer.commands.shared import add_run_arguments, run_command
from dporun_trainer.commands.uploads import fetch, uploading
from dporun_trainer.errors import RunError
from dporun_trainer.run_folder import RunFolder
from dporun_trainer.run_folder.prepared import Prepared
from dporun_trainer.signals import on_stop
from dporun_trainer.training.launch import node_rank, offline, run_process, stall_limit, train
from dporun_trainer.training.status_server import serve

_EXIT_SECONDS = 5.0

TRAIN_PROCESS = "dporun_trainer.commands.train_process"
FINISH = "dporun_trainer.commands.finish"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_run_arguments(parser)
    parser.add_argument("--port", type=int, default=STATUS_PORT, help="port of the status server; 0 for none")


def run(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    return run_command(
        arguments,
        lambda folder: folder.node_outcome(os.environ.get(NODE_INDEX_VARIABLE, "0")),
        lambda config, folder: launch(config, arguments.config, folder, port=arguments.port),
    )


def launch(config: RunConfig, config_path: Path, folder: RunFolder, *, port: int) -> Outcome:
    """Train, evaluate and report, as far as that is not done yet.

    Args:
        config: what to do.
        config_path: file that holds it, for the processes started here.
        folder: of the run.
        port: of the status server, on node 0; 0 for none.

    Returns:
        How it ended: on node 0 with the results of the whole run, on other nodes with those of training.

    Raises:
        RunError: it cannot start.

    """
    prepared = folder.load_prepared()
    node = node_rank(os.environ, config)
    if node == 0 and not folder.is_trained:
        folder.progress.update(stage=Stage.LOADING, detail=None)
        if (too_early := fetch(config, folder)) is not None:
            return too_early
    stop = Stop(config.grace_period_seconds)
    with on_stop(stop.set), serve(folder.path, port if node == 0 else 0), nvml.watching() as evidence:
        if node > 0:
            message = "Training finished; node 0 evaluates and reports."
            done = Outcome(state=OutcomeState.SUCCEEDED, message=message)
            return _located(_train(config, config_path, folder, node, stop) or done, evidence())
        with uploading(config, config_path, folder) as uploads:
            ended = _train(config, config_path, folder, node, stop) or _finish(config, config_path, folder, stop)
            if ended.state is not OutcomeState.SUCCEEDED:  # else the archive follows at once
                uploads.finish(stop.seconds_left)
        return _with_progress(_located(ended, evidence()), folder, prepared)


def _located(outcome: Outcome, evidence: str) -> Outcome:
    return gpu_errors.located(outcome, node=os.environ.get(NODE_NAME_VARIABLE), evidence=evidence)


class Stop(threading.Event):
    """Set when the pod is asked to stop."""

    def __init__(self, grace_seconds: float):
        super().__init__()
        self._grace_seconds = grace_seconds
        self._ends: float | None = None

    def set(self) -> None:
        """Ask to stop."""
        if self._ends is None:
            self._ends = time.monotonic() + self._grace_seconds - _EXIT_SECONDS
        super().set()

    def seconds_left(self) -> float:
        """Seconds until the pod must end; infinite when it was not asked to stop."""
        return math.inf if self._ends is None else self._ends - time.monotonic()


def _train(config: RunConfig, config_path: Path, folder: RunFolder, node: int, stop: threading.Event) -> Outcome | None:
    """Train, unless that is done; how training ended, if not well.

    Of several nodes, the first process of all says whether it is done: each node sees the volume with its own eyes.
    """
    if folder.is_trained and config.topology.nodes == 1:
        return None
    outcome = train(config, folder, arguments_of(TRAIN_PROCESS, config_path, folder), node=node, stop=stop)
    return None if outcome.state is OutcomeState.SUCCEEDED else outcome


def arguments_of(module: str, config_path: Path, folder: RunFolder) -> list[str]:
    """What ``python -m`` needs to start ``module`` for a run."""
    return [module, "--config", str(config_path), "--directory", str(folder.path)]


def _finish(config: RunConfig, config_path: Path, folder: RunFolder, stop: threading.Event) -> Outcome:
    """Evaluate, merge and report in a process of its own, with the whole device to itself."""
    folder.finish_outcome.delete()
    before = oom_kills()
    command = [sys.executable, "-m", *arguments_of(FINISH, config_path, folder)]
    environment = threads.variables(os.environ) | offline(os.environ)
    ended = run_process(command, environment, folder, stop, stall_seconds=stall_limit(config))
    outcome = folder.finish_outcome.read()
    if outcome is not None:
        return outcome
    if stop.is_set():
        message = "Preempted after training; the next attempt evaluates and reports."
        return Outcome(state=OutcomeState.PREEMPTED, message=message)
    if oom_kills() > before:
        reason = Reason.HOST_OUT_OF_MEMORY
    elif disk.takes_nothing(folder.path):
        reason = Reason.DISK_FULL
    else:
        reason = Reason.TRAINER_ERROR if ended.stalled is None else Reason.STALLED
    how = f"with exit code {ended.exit_code} and no outcome"
    error = RunError(reason, f"evaluation ended {how}; training is done and kept", hint=reason.traits.hint)
    return Outcome(state=OutcomeState.FAILED, message=error.message, failure=error.failure(log_tail=ended.log_tail))


def _with_progress(outcome: Outcome, folder: RunFolder, prepared: Prepared) -> Outcome:
    """Fill in what ``outcome`` leaves open from the run's progress."""
    snapshot = folder.progress.read()
    known = {
        "resumed_from": snapshot.resumed_from,
        "step": snapshot.step or None,
        "dataset": prepared.dataset,
        "metrics": snapshot.metrics,
        "best_checkpoint": snapshot.best_checkpoint,
        "checkpoint_upload": folder.checkpoint_upload.read(),
        "health": snapshot.health,
    }
    return outcome.model_copy(update={name: value for name, value in known.items() if getattr(outcome, name) is None})
