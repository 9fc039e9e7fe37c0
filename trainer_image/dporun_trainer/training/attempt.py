"""One attempt of a run, in one of its training processes: load, train, leave the best adapter in ``final``."""

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from transformers import set_seed

from dporun_api.results import Health, Stage
from dporun_api.run_config import RunConfig
from dporun_trainer.machine import Machine
from dporun_trainer.progress import heartbeat
from dporun_trainer.run_folder import RunFolder
from dporun_trainer.run_folder.prepared import ModelFacts
from dporun_trainer.training import bookkeeping
from dporun_trainer.training.agreement import TRAINING_SECONDS, allow
from dporun_trainer.training.build import build, decide
from dporun_trainer.training.plan import TrainingPlan
from dporun_trainer.training.reporter import Reporter
from dporun_trainer.training.tensorboard import Charts
from dporun_trainer.training.trainer import RunTrainer
from dporun_trainer.training.usage import UsageMeter


class Attempt:
    """One attempt of a run, as one of its processes sees it."""

    def __init__(
        self,
        config: RunConfig,
        folder: RunFolder,
        stop: threading.Event,
        rank: int,
        diagnose: Callable[[Sequence[Mapping[str, Any]], ModelFacts], Health],
    ):
        self._config = config
        self._folder = folder
        self._stop = stop
        self._main = rank == 0
        self._diagnose = diagnose
        self.machine: Machine | None = None
        self.plan: TrainingPlan | None = None
        self.trainer: RunTrainer | None = None

    @property
    def step(self) -> int | None:
        """Optimizer steps made, earlier attempts included; None before training."""
        return None if self.trainer is None else self.trainer.state.global_step or None

    def run(self, before: Callable[[RunTrainer], None] | None = None) -> None:
        """Load, train, and leave the best adapter in ``final``, unless an earlier attempt did.

        Args:
            before: called with the trainer when every process is ready to start.

        Raises:
            Preempted: the processes were asked to stop; there is a checkpoint if there was anything to save.
            RunError: the run cannot go on.

        """
        with self._alive(Stage.LOADING):
            prepared = self._folder.load_prepared()
            self.machine, self.plan = decided = decide(self._config, prepared)
            trainer = build(
                self._config,
                prepared,
                self._folder,
                self._stop,
                lambda history: self._diagnose(history, prepared.model),
                decided,
            )
            if trainer is None:
                return
            self.trainer, self.plan = trainer, trainer.run.plan
            total = prepared.lint.train.total
            usage = UsageMeter(trainer, round(total.mean) if total else self._config.dpo.max_length)
            trainer.add_callback(usage)
            if self._main:
                bookkeeping.begin(trainer, prepared)
                reporter = Reporter(trainer, usage)
                trainer.add_callback(reporter)
                trainer.add_callback(Charts(trainer, reporter, usage))
            trainer.accelerator.wait_for_everyone()
            if before is not None:
                before(trainer)
        allow(TRAINING_SECONDS)
        checkpoint = trainer.run.resumed
        if checkpoint is None:  # loading takes random numbers or none, as an earlier attempt had come that far or not
            set_seed(self._config.training.seed)
        with trainer.resuming():
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
        self._folder.progress.update(stage=stage)
        with heartbeat(self._folder.progress):
            yield
