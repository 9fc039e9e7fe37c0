"""TRL's DPOTrainer with what a run in a cluster needs: complete checkpoints, agreement on stopping, sums that go on."""

import contextlib
import math
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from trl import DPOTrainer

from dporun_api.run_config import RunConfig
from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer.errors import RunError
from dporun_trainer.run_folder import checkpoints, running_totals
from dporun_trainer.run_folder.checkpoints import Checkpoint, Marker
from dporun_trainer.run_folder.running_totals import RunningTotals
from dporun_trainer.training.settings import Machine, Settings, is_due

NON_FINITE_LIMIT = 3
"""Consecutive steps without a finite loss and gradient after which a run is given up."""


class Preempted(Exception):  # noqa: N818  a signal, not an error
    """The processes agreed to stop, and whatever can be saved is saved."""


@dataclass(frozen=True)
class Run:
    """What the trainer knows of the run it works for.

    Attributes:
        config: what the user asked.
        settings: what is really done.
        machine: what this process runs on.
        directory: of the run.
        identity: what a checkpoint must have in common with this attempt to go on exactly.
        stop: set when this process was asked to stop.

    """

    config: RunConfig
    settings: Settings
    machine: Machine
    directory: Path
    identity: dict[str, object]
    stop: threading.Event


class RunTrainer(DPOTrainer):
    """DPOTrainer for one attempt of a run."""

    def __init__(self, *, run: Run, **arguments: Any):
        self.run = run
        self.earlier = RunningTotals()
        self.non_finite_steps = 0
        self._non_finite_streak = 0
        self._preempting = False
        self._rows: list[int] = []
        self._began = time.monotonic()
        super().__init__(**arguments)
        self._non_finite = torch.zeros((), dtype=torch.bool, device=self.accelerator.device)

    # Agreement

    def any_process(self, *flags: bool) -> list[bool]:
        """Tell for each flag whether any process raises it. Collective: every process must call it."""
        votes = torch.tensor(flags, dtype=torch.int32, device=self.accelerator.device)
        if dist.is_initialized():
            dist.all_reduce(votes, op=dist.ReduceOp.MAX)
        return [bool(vote) for vote in votes.tolist()]

    def end_step(self) -> bool:
        """Look at the step just made, and ask whether to stop here. Collective.

        Returns:
            Whether any process was asked to stop.

        Raises:
            RunError: loss or gradient were not finite for the third time in a row.

        """
        local = bool(self._non_finite)
        self._non_finite.zero_()
        stop, non_finite = self.any_process(self.run.stop.is_set(), local)
        if self.run.settings.precision != "fp16":  # there, DeepSpeed finds its loss scale by overflowing
            norm = self.model_wrapped.get_global_grad_norm()
            non_finite = non_finite or (norm is not None and not math.isfinite(norm))
        self._non_finite_streak = self._non_finite_streak + 1 if non_finite else 0
        self.non_finite_steps += non_finite
        if self._non_finite_streak >= NON_FINITE_LIMIT:
            raise RunError(
                Reason.NON_FINITE_LOSS,
                f"loss or gradient were not finite at steps {self.state.global_step - NON_FINITE_LIMIT + 1} to "
                f"{self.state.global_step} (NaN or infinity)",
                hint="Lower training.learningRate, or look for bad rows; checkpoints from before are kept.",
            )
        return stop

    def stop_if_asked(self) -> None:
        """Leave a phase that has nothing to save when any process was asked to. Collective.

        Raises:
            Preempted: one was.

        """
        if self.any_process(self.run.stop.is_set())[0]:
            raise Preempted

    def preempt_after_saving(self) -> None:
        """Make the checkpoint that is saved next the last one."""
        self._preempting = True

    # Phases

    def _run_epoch(self, **named: Any) -> None:
        """Train one epoch, unless there is nothing left to train.

        transformers looks only after a step whether it was the last one, so going on from the last checkpoint of a run
        that ends within an epoch would make one step too many.
        """
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
        if not self.control.should_training_stop:
            super()._run_epoch(**named)

    def compute_ref_log_probs(self, model: Any, inputs: Any) -> Any:
        """Compute the base model's log-probabilities of a batch, unless asked to stop."""
        self.stop_if_asked()
        return super().compute_ref_log_probs(model, inputs)

    def training_step(self, *arguments: Any, **named: Any) -> torch.Tensor:
        """Compute gradients of one batch and remember whether its loss was finite."""
        loss: torch.Tensor = super().training_step(*arguments, **named)
        self._non_finite |= ~torch.isfinite(loss)
        return loss

    def evaluate(self, *arguments: Any, **named: Any) -> dict[str, float]:
        """Validate without disturbing the random numbers of training."""
        devices = [self.accelerator.device] if self.accelerator.device.type == "cuda" else []
        self._rows = []
        with torch.random.fork_rng(devices=devices):
            metrics: dict[str, float] = super().evaluate(*arguments, **named)
        return metrics

    def prediction_step(self, model: Any, inputs: Any, *arguments: Any, **named: Any) -> Any:
        """Validate one batch, unless asked to stop; rows that only fill up the last batch do not count."""
        self.stop_if_asked()
        state = self.accelerator.gradient_state
        last = state.end_of_dataloader and state.remainder > 0
        rows = state.remainder if last else len(inputs["input_ids"]) // 2 * self.accelerator.num_processes
        self._rows.append(rows)
        gather = self.accelerator.gather
        self.accelerator.gather = lambda values: gather(values)[:rows]
        try:
            return super().prediction_step(model, inputs, *arguments, **named)
        finally:
            self.accelerator.gather = gather

    def _evaluate(self, *arguments: Any, **named: Any) -> dict[str, float]:
        try:
            metrics: dict[str, float] = super()._evaluate(*arguments, **named)
        except Preempted:  # save what was trained; the next attempt validates it
            self._preempting = self.control.should_save = True
            return {}
        return metrics

    def validate_if_due(self, checkpoint: Checkpoint) -> Checkpoint:
        """Validate at the step of ``checkpoint`` when its attempt was stopped before it could."""
        plan, config = self.run.settings, self.run.config
        step = self.state.global_step
        seen = any(_validates(entry, step) for entry in self.state.log_history)
        if seen or not is_due(step, plan.plan.steps, plan.steps_per_epoch, config.checkpoints.every_steps):
            return checkpoint
        loss = self._evaluate(None, None).get("eval_loss")
        if loss is None:
            raise Preempted
        if self.accelerator.is_main_process and math.isfinite(loss):
            checkpoint = checkpoints.update_marker(checkpoint, eval_loss=loss)
        self.accelerator.wait_for_everyone()
        return checkpoint

    # Sums that go on across attempts

    def restore_sums(self, earlier: RunningTotals) -> None:
        """Go on with the sums of the attempt whose checkpoint was loaded."""
        self.earlier = earlier
        self._tr_loss.fill_(earlier.loss_since_log)
        self._total_loss_scalar = earlier.loss_total
        self._globalstep_last_logged = earlier.last_logged
        self._initial_global_step = 0  # what train_loss and the number of samples are counted from
        self._metrics["train"].update({name: list(values) for name, values in earlier.metrics.items()})
        self._total_train_tokens = earlier.tokens
        self.non_finite_steps = earlier.non_finite_steps

    def begin_clock(self) -> None:
        """Start to count the time of this attempt."""
        self._began = time.monotonic()

    def seconds(self) -> float:
        """Seconds of training, over all attempts."""
        return self.earlier.seconds + time.monotonic() - self._began

    def sums(self) -> RunningTotals:
        """Collect the running sums of this process."""
        return RunningTotals(
            loss_since_log=self._tr_loss.item(),
            loss_total=self._total_loss_scalar,
            last_logged=self._globalstep_last_logged,
            metrics={name: [float(value) for value in values] for name, values in self._metrics["train"].items()},
            tokens=int(self._total_train_tokens),
            seconds=self.seconds(),
            non_finite_steps=self.non_finite_steps,
            attempts=self.earlier.attempts,
        )

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, with the totals of all attempts at the end of training, and validation averaged per example.

        TRL averages the means of batches, whatever their sizes.
        """
        if "eval_loss" in logs:
            for name, values in self._metrics["eval"].items():
                if len(values) == len(self._rows):
                    mean = sum(value * rows for value, rows in zip(values, self._rows, strict=True)) / sum(self._rows)
                    self._metrics["eval"][name] = [mean]
        if "train_runtime" in logs:
            seconds = self.seconds()
            samples = min(self.state.epoch or 0, self.run.config.training.epochs) * len(self.train_dataset)
            logs["train_runtime"] = round(seconds, 4)
            logs["train_samples_per_second"] = round(samples / seconds, 3)
            logs["train_steps_per_second"] = round(self.state.global_step / seconds, 3)
        super().log(logs, start_time)

    # Checkpoints

    def create_model_card(self, *arguments: Any, **named: Any) -> None:
        """Write none: the report writes the run's model card."""

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the adapter. Unlike the base class, no process copies the frozen weights, whatever their size."""
        if self.args.should_save:
            trainable = {name: weight for name, weight in self.model.named_parameters() if weight.requires_grad}
            self._save(output_dir, state_dict=trainable)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        step = self.state.global_step
        path = checkpoints.folder(self.run.directory, step)
        if not any(saved.step == step for saved in checkpoints.complete(self.run.directory)):
            with disk_errors(path):
                super()._save_checkpoint(model, trial)
                running_totals.save(path, self.accelerator.process_index, self.sums())
                self.accelerator.wait_for_everyone()
                if self.accelerator.is_main_process:
                    checkpoints.mark_complete(path, self._marker())
            self.accelerator.wait_for_everyone()
        if self._preempting:
            raise Preempted

    def _marker(self) -> Marker:
        step = self.state.global_step
        loss = next((entry["eval_loss"] for entry in self.state.log_history[::-1] if _validates(entry, step)), None)
        finite = loss is not None and math.isfinite(loss)
        return Marker(
            step=step, epoch=self.state.epoch or 0, eval_loss=loss if finite else None, identity=self.run.identity
        )


def _validates(entry: Mapping[str, Any], step: int) -> bool:
    return "eval_loss" in entry and entry["step"] == step


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a full disk, which every library reports in its own way, into one clear error.

    Raises:
        RunError: there was no space to write a checkpoint to ``path``; what was written of it is removed.

    """
    try:
        yield
    except Exception as error:
        if not _disk_is_full(error):
            raise
        shutil.rmtree(path, ignore_errors=True)
        raise RunError(
            Reason.DISK_FULL,
            f"no space left on the volume while saving {path.name}",
            hint="Set a larger storage.size; the checkpoints saved so far are complete and kept.",
        ) from error


def _disk_is_full(error: BaseException) -> bool:
    words = ("No space left on device", "Disk quota exceeded", "file write failed", "PytorchStreamWriter failed")
    chain: BaseException | None = error
    while chain is not None:
        if any(word in str(chain) for word in words):
            return True
        chain = chain.__cause__ or chain.__context__
    return False
