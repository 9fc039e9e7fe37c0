"""TRL's DPOTrainer with what a run in a cluster needs: agreement on stopping, whole checkpoints, totals over attempts.

What it needs of the private parts of TRL and transformers is behind FencedTrainer, in trl_internals.py.
"""

import contextlib
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from trl import DPOConfig

from dporun_api.results import Health
from dporun_api.run_config import RunConfig
from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer.errors import RunError
from dporun_trainer.machine import Machine
from dporun_trainer.objective import DISCOPOP_TAU, Objective
from dporun_trainer.progress import heartbeat
from dporun_trainer.run_folder import RunFolder, checkpoints, room, running_totals
from dporun_trainer.run_folder.checkpoints import Checkpoint, Marker
from dporun_trainer.run_folder.running_totals import RunningTotals
from dporun_trainer.training.agreement import from_first, largest, to_first
from dporun_trainer.training.failures import disk_errors
from dporun_trainer.training.fused_head import require_own_logits
from dporun_trainer.training.plan import TrainingPlan
from dporun_trainer.training.resume import is_exact
from dporun_trainer.training.trl_internals import FencedTrainer, without_optimizer_state
from dporun_trainer.training.validation import ValidatedRow, metrics_of

log = logging.getLogger(__name__)

NON_FINITE_LIMIT = 3
"""Consecutive steps without a finite loss and gradient after which a run is given up."""


class Preempted(Exception):  # noqa: N818  a signal, not an error
    """The processes agreed to stop, and whatever can be saved is saved."""


Diagnose = Callable[[Sequence[Mapping[str, Any]]], Health]
"""Judges how healthy a run is by its log history."""


@dataclass(frozen=True)
class TrainingRun:
    """What the trainer knows of the run for which it makes an attempt.

    Attributes:
        config: what the user asked.
        plan: what is really done.
        machine: what this process computes on.
        folder: of the run.
        identity: what a checkpoint must have in common with this attempt to go on exactly.
        resumed: checkpoint that this attempt goes on from; None when it starts at the beginning.
        trainable: number of weights that are trained.
        stop: set when this process was asked to stop.
        diagnose: health of the run by its log history.

    """

    config: RunConfig
    plan: TrainingPlan
    machine: Machine
    folder: RunFolder
    identity: dict[str, object]
    resumed: Checkpoint | None
    trainable: int
    stop: threading.Event
    diagnose: Diagnose


class RunTrainer(FencedTrainer):
    """The trainer of one attempt of a run, in one of its processes.

    Methods marked as collective exchange data among the processes: each process must call them equally often, in the
    same order, or all of them hang.
    """

    def __init__(self, *, run: TrainingRun, **arguments: Any):
        self.run = run
        self.earlier = RunningTotals()
        self.non_finite_steps = 0
        self._non_finite_streak = 0
        self._preempting = False
        self._objective_checked = False
        self._rows: list[ValidatedRow] = []
        self._reference_batches = 0
        self._tell_next = 0.0
        self._began = time.monotonic()
        _require_known(**arguments)
        super().__init__(**arguments)
        self.objective = Objective(self.loss_types, self.loss_weights, self.beta, self.label_smoothing)
        # On the device, so that looking at the loss of a batch does not wait for it: end_step reads it once a step.
        self._saw_non_finite = torch.zeros((), dtype=torch.bool, device=self.accelerator.device)

    # Agreement: a signal reaches the processes at different steps, a NaN perhaps only one of them

    def any_process(self, *flags: bool) -> list[bool]:
        """Whether any process raises a flag, for each of the flags. Collective."""
        return [bool(vote) for vote in largest(*flags, device=self.accelerator.device)]

    def end_step(self) -> bool:
        """Judge the step just made, and agree with the other processes on going on. Collective.

        Returns:
            Whether any process was asked to stop.

        Raises:
            RunError: loss or gradient were not finite for the third time in a row.

        """
        saw_non_finite = bool(self._saw_non_finite)
        self._saw_non_finite.zero_()
        stop, non_finite = self.any_process(self.run.stop.is_set(), saw_non_finite)
        # In fp16 an infinite gradient is no error: DeepSpeed finds its loss scale by overflowing, and skips the step.
        if self.run.plan.precision != "fp16":
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
        """Leave a phase that has nothing to save, when any process was asked to stop. Collective.

        Raises:
            Preempted: some process was asked to stop.

        """
        if self.any_process(self.run.stop.is_set())[0]:
            raise Preempted

    def preempt_after_saving(self) -> None:
        """End the attempt after the next checkpoint."""
        self._preempting = True

    # Forward passes

    def compute_ref_log_probs(self, *arguments: Any, **named: Any) -> Any:
        """Compute the base model's log-probabilities of one batch, before the first step where they are precomputed."""
        self.check_objective()
        self._tell_of_references()
        return super().compute_ref_log_probs(*arguments, **named)

    def _tell_of_references(self) -> None:
        """Show how far they are: for much data they take minutes, before there is any step to count."""
        self._reference_batches += 1
        if not self.accelerator.is_main_process or self.is_in_train or time.monotonic() < self._tell_next:
            return
        self._tell_next = time.monotonic() + 1
        config, plan = self.run.config, self.run.plan
        pairs = config.training.per_device_batch_size * config.topology.world_size
        batches = math.ceil(plan.train_rows / pairs) + math.ceil(plan.validation_rows / pairs)
        self.run.folder.progress.update(detail=f"log-probabilities of the base, {self._reference_batches}/{batches}")

    def check_objective(self) -> None:
        """Make sure, once, that what is optimised is the model's own, before anything takes long. Collective.

        Raises:
            RunError: it is not.

        """
        if not self._objective_checked:
            self._objective_checked = True
            require_own_logits(self)

    def training_step(self, *arguments: Any, **named: Any) -> torch.Tensor:
        """Compute gradients of one batch, and remember whether its loss was finite."""
        loss: torch.Tensor = super().training_step(*arguments, **named)
        self._saw_non_finite |= ~torch.isfinite(loss)
        return loss

    # Validation

    def evaluate(self, *arguments: Any, **named: Any) -> dict[str, float]:
        """Validate without touching the random numbers of training: resuming would not be exact otherwise."""
        devices = [self.accelerator.device] if self.accelerator.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            metrics: dict[str, float] = super().evaluate(*arguments, **named)
        return metrics

    def evaluation_loop(self, *arguments: Any, metric_key_prefix: str = "eval", **named: Any) -> Any:
        """Validate one set, and average over its rows. Collective."""
        self._rows = []
        output = super().evaluation_loop(*arguments, metric_key_prefix=metric_key_prefix, **named)
        rows = to_first(self._rows)
        metrics = from_first({} if rows is None else metrics_of(rows, self.objective))
        output.metrics.update({f"{metric_key_prefix}_{name}": value for name, value in metrics.items()})
        return output

    def prediction_step(self, model: Any, inputs: Any, *_: Any, **_named: Any) -> tuple[None, None, None]:
        """Score the rows of one batch, unless asked to stop. Collective."""
        self.stop_if_asked()
        self._rows += self.score_rows(model, inputs)
        return None, None, None

    def around_validation(self, validate: Callable[[], dict[str, float]]) -> dict[str, float]:
        """Validate; when asked to stop meanwhile, save what was trained and let the next attempt validate it."""
        try:
            return validate()
        except Preempted:
            self._preempting = self.control.should_save = True
            return {}

    def validate_start(self) -> None:
        """Validate before the first step, when there is no checkpoint to save. Collective.

        Raises:
            Preempted: some process was asked to stop meanwhile.

        """
        if not self.validate():
            raise Preempted

    def validate_if_due(self, checkpoint: Checkpoint) -> Checkpoint:
        """Validate at the step of ``checkpoint`` when its attempt was stopped before it could. Collective."""
        step = self.state.global_step
        seen = any(_validates(entry, step) for entry in self.state.log_history)
        if seen or not self.run.plan.schedule.is_due(step):
            return checkpoint
        loss = self.validate().get("eval_loss")
        if loss is None:  # stopped again; there is nothing new to save
            raise Preempted
        if self.accelerator.is_main_process and math.isfinite(loss):
            checkpoint = checkpoints.update_marker(checkpoint, eval_loss=loss)
        self.accelerator.wait_for_everyone()
        return checkpoint

    # Totals that go on across attempts

    @contextlib.contextmanager
    def resuming(self) -> Iterator[None]:
        """Resume as exactly as this number of processes allows."""
        checkpoint = self.run.resumed
        if checkpoint is None or is_exact(checkpoint, self.run.identity):
            yield
            return
        log.warning(
            "%s was saved by %s processes and goes on with %s: from its weights, its step and its learning rate, "
            "without the optimizer's state",
            checkpoint.path.name,
            checkpoint.marker.identity.get("worldSize"),
            self.accelerator.num_processes,
        )
        with without_optimizer_state():
            yield

    def begin_clock(self) -> None:
        """Start to count the time of this attempt."""
        self._began = time.monotonic()

    def seconds(self) -> float:
        """Seconds of training, over all attempts."""
        return self.earlier.seconds + time.monotonic() - self._began

    def restore_totals(self, earlier: RunningTotals) -> None:
        """Go on with the totals of the attempt whose checkpoint was loaded."""
        self.earlier = earlier
        self.non_finite_steps = earlier.non_finite_steps
        self.restore_loop_totals(earlier)

    def totals(self) -> RunningTotals:
        """Collect the totals of this process since the start of the run. Collective."""
        ours = {
            "seconds": self.seconds(),
            "non_finite_steps": self.non_finite_steps,
            "attempts": self.earlier.attempts,
        }
        return self.loop_totals().model_copy(update=ours)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log losses of preferences alone, as those of validation are; totals are of all attempts. Collective."""
        if "loss" in logs:
            logs["loss"] -= self.router_aux_loss_coef * self.router_loss()
        if "train_runtime" in logs:  # transformers' own count this attempt alone
            seconds = self.seconds()
            samples = min(self.state.epoch or 0, self.run.config.training.epochs) * self.run.plan.train_rows
            logs["train_runtime"] = round(seconds, 4)
            logs["train_samples_per_second"] = round(samples / seconds, 3)
            logs["train_steps_per_second"] = round(self.state.global_step / seconds, 3)
        super().log(logs, start_time)

    # Checkpoints

    def around_checkpoint(self, save: Callable[[], None]) -> None:
        """Save a checkpoint and mark it complete once every process has written its part. Collective.

        Raises:
            Preempted: this was to be the last one.
            RunError: the disk is full.

        """
        step = self.state.global_step
        path = self.run.folder.checkpoints.folder(step)
        resumed = self.run.resumed
        # It is there when the attempt goes on from it and only had its validation to make up for.
        if resumed is None or resumed.step != step:
            with self._alive(), disk_errors(path, self._make_room(path.name)):
                save()
                running_totals.save(path, self.accelerator.process_index, self.totals())
                self.accelerator.wait_for_everyone()
                if self.accelerator.is_main_process:
                    checkpoints.mark_complete(path, self._marker())
            self.accelerator.wait_for_everyone()
        if self._preempting:
            raise Preempted

    @contextlib.contextmanager
    def _alive(self) -> Iterator[None]:
        """Renew the heartbeat while there are no steps: a slow volume is no stall."""
        if not self.accelerator.is_main_process:
            yield
            return
        with heartbeat(self.run.folder.progress):
            yield

    def _make_room(self, name: str) -> str:
        """Make room for the next checkpoint before anything of it is written. Collective.

        Returns:
            What to do when the room turns out to be too small.

        Raises:
            RunError: there is none.

        """
        lacking = None
        existing = self.run.folder.checkpoints
        needed = room.next_bytes(existing, self.run.trainable)
        if self.accelerator.is_main_process:
            free = room.make_room(existing, needed)
            lacking = room.lacking(name, needed, free) if free < needed else None
        if lacking := from_first(lacking):
            raise RunError(Reason.DISK_FULL, lacking, hint=room.hint(needed))
        return room.hint(needed)

    def _marker(self) -> Marker:
        step = self.state.global_step
        loss = next((entry["eval_loss"] for entry in self.state.log_history[::-1] if _validates(entry, step)), None)
        finite = loss is not None and math.isfinite(loss)
        return Marker(
            step=step, epoch=self.state.epoch or 0, eval_loss=loss if finite else None, identity=self.run.identity
        )


def _validates(entry: Mapping[str, Any], step: int) -> bool:
    return "eval_loss" in entry and entry["step"] == step


def _require_known(args: DPOConfig, compute_metrics: object = None, **_: object) -> None:
    """Refuse what validation would leave out of its loss; no run of DPORun asks for it.

    Raises:
        ValueError: names it.

    """
    unknown = {
        "use_weighting": args.use_weighting,
        "ld_alpha": args.ld_alpha is not None,
        "f_divergence_type": args.f_divergence_type != "reverse_kl",
        "discopop_tau": args.discopop_tau != DISCOPOP_TAU,
        "compute_metrics": compute_metrics is not None,
    }
    if asked := [name for name, is_asked in unknown.items() if is_asked]:
        raise ValueError(f"validation does not compute {', '.join(asked)}")
