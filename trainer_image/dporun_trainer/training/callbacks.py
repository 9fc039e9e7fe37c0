"""Callbacks of the training loop: when to validate and save, when to stop, and which checkpoints to delete."""

import logging
import math
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from dporun_api.results import HealthState
from dporun_trainer.run_folder import running_totals

if TYPE_CHECKING:
    from dporun_trainer.training.trainer import RunTrainer

log = logging.getLogger(__name__)


class Continuity(TrainerCallback):
    """Go on where the checkpoint was left: its totals, and the validation that its attempt had no time for."""

    def __init__(self, trainer: "RunTrainer"):
        self._trainer = trainer

    def on_train_begin(self, *_: Any, **_named: Any) -> None:
        """Restore the totals and make up for the validation."""
        self._trainer.check_objective()
        self._trainer.begin_clock()
        checkpoint = self._trainer.run.resumed
        if checkpoint is not None:
            accelerator = self._trainer.accelerator
            earlier = running_totals.load(checkpoint.path, accelerator.process_index, accelerator.num_processes)
            self._trainer.restore_totals(earlier.model_copy(update={"attempts": earlier.attempts + 1}))
            self._trainer.validate_if_due(checkpoint)


class ValidateAndSave(TrainerCallback):
    """Validate and save after each epoch, at the last step, and every so many steps when asked.

    One rule for all of them; transformers knows either epochs or steps.
    """

    def __init__(self, trainer: "RunTrainer"):
        self._trainer = trainer
        self._schedule = trainer.run.plan.schedule

    def on_epoch_begin(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        """Validate before the first step, where the plan says so."""
        if state.global_step == 0 and self._schedule.validates_start:
            self._trainer.validate_start()

    def on_step_end(self, _args: Any, state: Any, control: Any, **_: Any) -> None:
        """Ask for validation and checkpoint when they are due."""
        control.should_evaluate = control.should_save = self._schedule.is_due(state.global_step)


class Stopping(TrainerCallback):
    """Stop when asked to, when training does not get better, and when it has become unstable.

    Every process decides the same: each has the same log, and they agree on signals. Otherwise those that
    go on would wait for those that stopped.
    """

    def __init__(self, trainer: "RunTrainer"):
        self._trainer = trainer
        self._training = trainer.run.config.training

    def on_train_begin(self, _args: Any, state: Any, control: Any, **_: Any) -> None:
        """Train no further when the earlier attempt had decided to stop, and was interrupted before it finished."""
        control.should_training_stop = self._no_patience_left(state) or self._unstable(state)

    def on_step_end(self, _args: Any, _state: Any, control: Any, **_: Any) -> None:
        """Save, and end the attempt, when any process was asked to stop."""
        if self._trainer.end_step():
            control.should_save, control.should_evaluate = True, False
            self._trainer.preempt_after_saving()

    def on_evaluate(self, _args: Any, state: Any, control: Any, **_: Any) -> None:
        """Stop when patience has run out."""
        if self._no_patience_left(state):
            control.should_training_stop = True

    def on_log(self, _args: Any, state: Any, control: Any, **_: Any) -> None:
        """Stop when the run is unstable, with a last checkpoint."""
        if not control.should_training_stop and self._unstable(state):
            control.should_training_stop = control.should_evaluate = control.should_save = True

    def _no_patience_left(self, state: Any) -> bool:
        patience = self._training.early_stopping_patience
        return patience is not None and validations_without_gain(state.log_history) >= patience

    def _unstable(self, state: Any) -> bool:
        if not self._training.stop_on_unstable or not state.log_history:
            return False
        return self._trainer.run.diagnose(state.log_history).state is HealthState.UNSTABLE


def validations_without_gain(history: list[dict[str, Any]]) -> int:
    """Count the validations since the one with the lowest loss; one before the first step is none of training's."""
    seen = [entry["eval_loss"] for entry in history if "eval_loss" in entry and entry["step"] > 0]
    losses = [loss if math.isfinite(loss) else math.inf for loss in seen]
    return len(losses) - 1 - losses.index(min(losses)) if losses else 0


class Pruning(TrainerCallback):
    """Delete checkpoints that are no longer needed, so that the disk does not fill."""

    def __init__(self, trainer: "RunTrainer"):
        self._trainer = trainer

    def on_save(self, *_: Any, **_named: Any) -> None:
        """Prune, now that there is a newer checkpoint; a failed delete must not stop training."""
        if self._trainer.accelerator.is_main_process:
            try:
                self._trainer.run.folder.checkpoints.prune(running=True)
            except OSError as error:
                log.warning("cannot delete an intermediate checkpoint: %s", error)
