"""What rank 0 reports while it trains: progress, the log history and one line for each log entry."""

import logging
import math
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from dporun_api.metrics import METRICS
from dporun_api.results import Metrics, Stage
from dporun_trainer.progress import TotalWork, WorkDone, finishing_seconds, pace, percent, seconds_left
from dporun_trainer.run_folder.curves import as_measured

if TYPE_CHECKING:
    from dporun_trainer.training.trainer import RunTrainer
    from dporun_trainer.training.usage import UsageMeter

log = logging.getLogger(__name__)

_EVERY_SECONDS = 1.0
_RECENT_STEPS = 20


class Reporter(TrainerCallback):
    """Keep progress and history up to date; on rank 0 only."""

    def __init__(self, trainer: "RunTrainer", usage: "UsageMeter"):
        self._trainer = trainer
        self._usage = usage
        self._progress = trainer.run.folder.progress
        self._recorded: int | None = None
        self._step_seconds: list[float] = []
        self._evaluation_seconds: list[float] = []
        self._unit_began = time.monotonic()  # of the step or validation that is under way
        self._updated = time.monotonic()  # the newest progress
        self._evaluated = 0
        self._seconds_per_token = 0.0

    @property
    def samples_per_second(self) -> float | None:
        """Preference pairs per second of the newest steps; None before the first."""
        recent = self._step_seconds[-_RECENT_STEPS:]
        pairs = len(recent) * self._trainer.run.config.effective_batch_size
        return pairs / sum(recent) if recent else None

    def record_answers(self, seconds: float, tokens: int) -> None:
        """Record how long generating ``tokens`` took: evaluation after training is estimated from it."""
        if tokens:
            self._seconds_per_token = seconds / tokens
        self._unit_began = time.monotonic()

    def on_train_begin(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        """Report that training starts, and from which checkpoint."""
        self._unit_began = time.monotonic()
        checkpoint = self._trainer.run.resumed
        resumed = checkpoint.path.name if checkpoint else None
        self._record(state.log_history)
        self._update_progress(state, stage=Stage.TRAINING, resumed_from=resumed, detail=None)
        if resumed:
            log.info("resuming from %s of %d steps", resumed, state.max_steps)

    def on_substep_end(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        """Report that training is alive."""
        self._update_progress_if_due(state)

    def on_step_end(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        """Record how long a step took."""
        now = time.monotonic()
        self._step_seconds.append(now - self._unit_began)
        self._unit_began = now
        self._update_progress_if_due(state)

    def on_prediction_step(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        """Report that validation is alive."""
        self._evaluated += 1
        self._update_progress_if_due(state, detail=f"validating, batch {self._evaluated}")

    def on_evaluate(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        """Record how long a validation took."""
        now = time.monotonic()
        self._evaluation_seconds.append(now - self._unit_began)
        self._unit_began, self._evaluated = now, 0
        self._update_progress(state, detail=None)

    def on_save(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        """Report the best checkpoint."""
        best = self._trainer.run.folder.checkpoints.best()
        self._update_progress(state, best_checkpoint=best.summary() if best else None)
        self._unit_began = time.monotonic()

    def on_log(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        """Report the newest metrics and the health that they show."""
        run = self._trainer.run
        self._record(state.log_history)
        self._update_progress(
            state,
            metrics=newest(state.log_history),
            usage=self._usage.newest,
            health=run.diagnose(state.log_history),
        )
        log.info("%s", line(state.log_history[-1], run.plan.schedule.steps))

    def _record(self, entries: Sequence[Mapping[str, Any]]) -> None:
        """Bring the history on disk up to date: what this attempt found there gives way to ``entries``, once."""
        history = self._trainer.run.folder.history
        if self._recorded is None:
            history.replace(entries)
        else:
            history.append(entries[self._recorded :])
        self._recorded = len(entries)

    def _update_progress_if_due(self, state: Any, **changes: Any) -> None:
        if time.monotonic() - self._updated >= _EVERY_SECONDS:
            self._update_progress(state, **changes)

    def _update_progress(self, state: Any, **changes: Any) -> None:
        work = self._trainer.run.plan.work
        evaluations = sum("eval_loss" in entry for entry in state.log_history)
        done = WorkDone(state.global_step, evaluations, self._step_seconds, self._evaluation_seconds)
        self._updated = time.monotonic()
        self._progress.update(
            step=state.global_step,
            total_steps=work.steps,
            epoch=state.epoch or 0,
            percent=percent(work, done),
            eta_seconds=seconds_left(work, done, afterwards=self._afterwards(work, done)),
            samples_per_second=self.samples_per_second,
            **changes,
        )

    def _afterwards(self, work: TotalWork, done: WorkDone) -> float:
        evaluation = self._trainer.run.config.evaluation
        known = pace(work, done)
        if not evaluation.enabled or known is None:
            return 0.0
        return finishing_seconds(
            answers=min(evaluation.max_examples, len(self._trainer.eval_dataset)),
            tokens=evaluation.max_new_tokens,
            seconds_per_token=self._seconds_per_token,
            evaluation=known[1],
            processes=max(self._trainer.run.config.topology.gpus_per_node, 1),
        )


def newest(history: Sequence[Mapping[str, Any]]) -> Metrics:
    """Newest value of each metric, of validation where it was validated; one that is not a number is absent."""
    found: dict[str, float] = {}
    entries = [as_measured(entry) for entry in history]
    for metric in METRICS:
        for split in metric.splits:  # validation comes last and takes precedence
            field, key = metric.field(split), metric.log_key(split)
            logged = [entry[key] for entry in entries if key in entry]
            if field and logged:
                found[field] = logged[-1]
    return Metrics(**{field: value for field, value in found.items() if math.isfinite(value)})


def line(entry: Mapping[str, Any], steps: int) -> str:
    """One log entry as a line for people."""
    entry = as_measured(entry)
    values = [
        f"{metric.short_of(split)} {entry[metric.log_key(split)]:{metric.format}}"
        for metric in METRICS
        for split in metric.splits
        if metric.short and metric.log_key(split) in entry
    ]
    if "train_runtime" in entry:
        values.append(f"trained for {entry['train_runtime']:.0f} s")
    return f"step {entry['step']}/{steps}  epoch {entry.get('epoch', 0):.2f}  " + "  ".join(values)
