"""One training process: started by accelerate on each rank, it trains, saves checkpoints and tells how it ended."""

import argparse
import contextlib
import ctypes
import logging
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from dporun_api import logs
from dporun_api import run_folder as layout
from dporun_api.pod import LOG_LEVEL_VARIABLE, ExitCode
from dporun_api.results import OutcomeState, Stage
from dporun_api.run_config import RunConfig
from dporun_trainer.progress import ProgressFile, heartbeat
from dporun_trainer.run_folder.prepared import Prepared
from dporun_trainer.training import ranks
from dporun_trainer.training.ranks import RankEnd

_PR_SET_PDEATHSIG = 1

if TYPE_CHECKING:
    from dporun_trainer.training.trainer import RunTrainer


def main() -> int:
    """Train as one rank; its end file tells what accelerate's exit code cannot."""
    stop = threading.Event()

    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    die_with_parent()
    parser = argparse.ArgumentParser(prog="python -m dporun_trainer.training.train", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="RunConfig, as JSON")
    parser.add_argument("--directory", type=Path, required=True, help="the run's directory")
    arguments = parser.parse_args()
    _configure_logging()
    config = RunConfig.model_validate_json(arguments.config.read_text(encoding="utf-8"))
    rank = int(os.environ.get("RANK", "0"))
    end = _run(config, arguments.directory, stop, rank)
    ranks.write(Path(os.environ[ranks.FOLDER_VARIABLE]), end)
    if end.state is OutcomeState.PREEMPTED:
        return ExitCode.PREEMPTED
    return ExitCode.OK if end.failure is None else end.failure.exit_code or ExitCode.ERROR


def die_with_parent() -> None:
    """Have the kernel kill this process when the one that started it dies; Linux only.

    torchelastic gives each of its processes a session of its own, so killing the launcher's process group, as is done
    when a process failed and the others hang, would leave those behind, holding their GPUs.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))


def _configure_logging() -> None:
    """Log only about the run: without the libraries' deprecation warnings, and in full on rank 0 alone."""
    main = os.environ.get("RANK", "0") == "0"
    logs.configure(os.environ.get(LOG_LEVEL_VARIABLE, "INFO") if main else "WARNING")
    warnings.filterwarnings("ignore", category=FutureWarning)
    for library in ("accelerate", "deepspeed", "DeepSpeed", "transformers", "trl", "datasets", "torch", "filelock"):
        logging.getLogger(library).setLevel(logging.ERROR)


def _run(config: RunConfig, directory: Path, stop: threading.Event, rank: int) -> RankEnd:
    from dporun_trainer.training.failures import explain_training  # noqa: PLC0415
    from dporun_trainer.training.trainer import Preempted  # noqa: PLC0415

    attempt = Attempt(config, directory, stop, rank)
    try:
        attempt.run()
    except Preempted:
        return RankEnd(rank=rank, state=OutcomeState.PREEMPTED, at=time.time(), step=attempt.step)
    except Exception as error:  # noqa: BLE001  the end file is where every error goes
        checkpointing = attempt.trainer is not None and attempt.trainer.run.plan.gradient_checkpointing
        failure = explain_training(error, config, checkpointing=checkpointing)
        return RankEnd(rank=rank, state=OutcomeState.FAILED, at=time.time(), step=attempt.step, failure=failure)
    return RankEnd(rank=rank, state=OutcomeState.SUCCEEDED, at=time.time(), step=attempt.step)


class Attempt:
    """One attempt of a run, as one of its processes sees it."""

    def __init__(self, config: RunConfig, directory: Path, stop: threading.Event, rank: int):
        self._config = config
        self._directory = directory
        self._stop = stop
        self._main = rank == 0
        self._progress = ProgressFile(directory / layout.PROGRESS)
        self.trainer: RunTrainer | None = None

    @property
    def step(self) -> int | None:
        """Optimizer steps made, earlier attempts included; None before training."""
        return None if self.trainer is None else self.trainer.state.global_step or None

    def run(self, before: Callable[["RunTrainer"], None] | None = None) -> None:
        """Load, train, and leave the best adapter in ``final``.

        Args:
            before: called with the trainer when it is ready to start.

        Raises:
            Preempted: the processes were asked to stop; there is a checkpoint if there was anything to save.
            RunError: the run cannot go on.

        """
        from dporun_trainer.training import bookkeeping  # noqa: PLC0415
        from dporun_trainer.training.build import build  # noqa: PLC0415
        from dporun_trainer.training.reporter import Reporter  # noqa: PLC0415
        from dporun_trainer.training.tensorboard import Charts  # noqa: PLC0415

        with self._alive(Stage.LOADING):
            prepared = Prepared.load(self._directory)
            self.trainer = trainer = build(self._config, prepared, self._directory, self._stop)
            checkpoint = trainer.run.resumed
            if self._main:
                bookkeeping.begin(trainer, prepared, checkpoint)
                reporter = Reporter(trainer, self._progress, checkpoint)
                trainer.add_callback(reporter)
                trainer.add_callback(Charts(trainer, reporter, checkpoint))
            if before is not None:
                before(trainer)
            trainer.accelerator.wait_for_everyone()
            trainer.stop_if_asked()
        trainer.train(resume_from_checkpoint=str(checkpoint.path) if checkpoint else None)
        with self._alive(Stage.TRAINING):
            if self._main:
                bookkeeping.finish(trainer)
            trainer.accelerator.wait_for_everyone()

    @contextlib.contextmanager
    def _alive(self, stage: Stage) -> Iterator[None]:
        if not self._main:
            yield
            return
        self._progress.update(stage=stage)
        with heartbeat(self._progress):
            yield


if __name__ == "__main__":
    sys.exit(main())
