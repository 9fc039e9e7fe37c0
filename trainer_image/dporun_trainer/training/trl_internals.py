"""The fence around TRL, transformers, accelerate and DeepSpeed: each private part of theirs that the trainer touches.

No other module of the trainer uses a private name of these libraries; a test reads all of them. RunTrainer (trainer.py)
builds on FencedTrainer, which offers the private parts under public names and turns private methods into hooks.
What is taken from where, and what breaks when that changes, is listed in upstream.py.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import deepspeed.ops
import torch
import transformers
from accelerate import Accelerator
from trl import DPOTrainer

from dporun_trainer.run_folder.running_totals import RunningTotals
from dporun_trainer.run_folder.tokens import COLUMNS
from dporun_trainer.training.postponed import Postponing, Selectable, now
from dporun_trainer.training.validation import ValidatedRow

_REFERENCE = ("ref_chosen_logps", "ref_rejected_logps")
"""Columns of a batch with the log-probabilities that the reference gives to the responses, where they are stored."""


def use_torch_collectives() -> None:
    """Keep DeepSpeed from compiling its shared-memory collectives for CPU; torch's gloo does the same work.

    They would be compiled at run time, which needs a compiler that the image does not have.
    """
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


class FencedTrainer(DPOTrainer):
    """DPOTrainer whose private parts have public names, and whose private methods are hooks to override."""

    accelerator: Any
    _postponing: Postponing | None = None

    # Hooks

    def around_validation(self, validate: Callable[[], dict[str, float]]) -> dict[str, float]:
        """Run a validation that is due in training, and return its metrics."""
        return validate()

    def around_checkpoint(self, save: Callable[[], None]) -> None:
        """Save the checkpoint of the current step. Collective: every process saves its part."""
        save()

    # Data

    def _prepare_dataset(self, dataset: Any, *arguments: Any) -> Any:
        """Tokenize rows, unless prepare has done that."""
        if set(COLUMNS) <= set(dataset.column_names):
            return dataset
        return super()._prepare_dataset(dataset, *arguments)

    # The training loop

    def _run_epoch(self, **named: Any) -> None:
        """Train one epoch, unless there is nothing left to train.

        transformers looks only after a step whether it was the last one, so going on from the last checkpoint of a run
        that ends within an epoch would make one step too many.
        """
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
        if not self.control.should_training_stop:
            super()._run_epoch(**named)

    def _evaluate(self, *arguments: Any, **named: Any) -> dict[str, float]:
        return self.around_validation(functools.partial(super()._evaluate, *arguments, **named))

    def validate(self) -> dict[str, float]:
        """Validate as training does when a validation is due; callbacks and log learn of it."""
        return self._evaluate(None, None)

    # Running totals

    def loop_totals(self) -> RunningTotals:
        """Read what the training loop of this process has added up since the start of the run. Collective."""
        metrics = self._settled()
        return RunningTotals(
            loss_since_log=self._tr_loss.item(),
            loss_total=self._total_loss_scalar,
            last_logged=self._globalstep_last_logged,
            metrics={name: [float(value) for value in values] for name, values in metrics.items()},
            tokens=int(self._total_train_tokens),
        )

    def restore_loop_totals(self, totals: RunningTotals) -> None:
        """Go on adding to what an earlier attempt had; call it in on_train_begin, as training starts anew before."""
        self._tr_loss.fill_(totals.loss_since_log)
        self._total_loss_scalar = totals.loss_total
        self._globalstep_last_logged = totals.last_logged
        self._metrics["train"].update({name: list(values) for name, values in totals.metrics.items()})
        self._total_train_tokens = totals.tokens
        self._initial_global_step = 0  # train_loss and the number of samples are counted from here

    # The log

    def _compute_loss(self, model: Any, inputs: Any, return_outputs: bool) -> Any:
        """Compute the loss of a batch; when training, what is gathered for the log waits on the device."""
        if not self.model.training:
            return super()._compute_loss(model, inputs, return_outputs)
        accelerator = self.accelerator
        self.accelerator = self._postponing = self._postponing or Postponing(accelerator)
        try:
            return super()._compute_loss(functools.partial(_forward, model), inputs, return_outputs)
        finally:
            self.accelerator = accelerator

    def _settled(self) -> dict[str, list[float]]:
        """Learn what the batches since the last log entry of training gave, by name. Collective."""
        if self._postponing is not None:
            self._postponing.settle()
        metrics: dict[str, list[float]] = self._metrics["train"]
        metrics.update({name: [now(value) for value in values] for name, values in metrics.items()})
        self._total_train_tokens = now(self._total_train_tokens)
        return metrics

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, with the means of the batches since the last log entry of training. Collective."""
        self._settled()
        super().log(logs, start_time)

    def router_loss(self) -> float:
        """Mean of the router's loss since the last log entry of training; 0 where it is no part. Collective."""
        losses = self._settled().get("aux_loss")
        return sum(losses) / len(losses) if losses else 0.0

    # Batches

    def _prepare_inputs(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Move a batch to the device; the reference's log-probabilities keep their precision, whatever the model's."""
        prepared: dict[str, Any] = super()._prepare_inputs(inputs)
        kept = {name: inputs[name].to(prepared[name].device) for name in _REFERENCE if name in inputs}
        return {**prepared, **kept}

    def score_rows(self, model: Any, inputs: Mapping[str, Any]) -> list[ValidatedRow]:
        """Score the rows of a batch by policy and reference, as training does; not those that only fill it up.

        Args:
            model: the policy.
            inputs: a batch as the data collator made it.

        """
        with torch.no_grad(), self.compute_loss_context_manager():
            values = self._row_values(model, self._prepare_inputs(inputs)).tolist()
        rows = rows_of_batch(self.accelerator, len(values))
        return [ValidatedRow.of(row) for row in values[:rows]]

    def _row_values(self, model: Any, batch: Mapping[str, Any]) -> torch.Tensor:
        """Compute the values of ValidatedRow.of for each row: shape (rows, 10), float64."""
        ids, completion = batch["input_ids"], batch["completion_mask"]
        arguments = {name: value for name, value in batch.items() if name not in {"completion_mask", *_REFERENCE}}
        labels = ids.masked_fill(completion == 0, -100)
        outputs = model(**arguments, use_cache=False, labels=labels, fused_lm_head=True)
        predicted = completion[:, 1:]

        def of_sequences(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            """Sum over the tokens of the responses: of the chosen ones, of the rejected ones."""
            # Prompt learning puts virtual tokens before the others, so positions count from the end.
            chosen, rejected = (values[:, -predicted.shape[1] :] * predicted).sum(dim=1).double().chunk(2)
            return chosen, rejected

        if self.precompute_ref_logps:
            reference = tuple(batch[name].double() for name in _REFERENCE)
        else:
            reference = tuple(part.double() for part in self.compute_ref_log_probs(self.ref_model or self.model, batch))
        entropy = sum(of_sequences(outputs.entropy))
        likeliest, _ = of_sequences(outputs.is_top1)
        columns = [
            *of_sequences(outputs.log_probs),
            *reference,
            *of_sequences(torch.ones_like(predicted)),
            entropy,
            *of_sequences(outputs.mean_logits),
            likeliest,
        ]
        return torch.stack(columns, dim=1)

    # Saving

    def create_model_card(self, *arguments: Any, **named: Any) -> None:
        """Write none: the report writes the run's model card."""

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the adapter. Unlike the base class, no process copies the frozen weights, whatever their size."""
        if self.args.should_save:
            trainable = {name: weight for name, weight in self.model.named_parameters() if weight.requires_grad}
            self._save(output_dir, state_dict=trainable)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        self.around_checkpoint(functools.partial(super()._save_checkpoint, model, trial))


def _forward(model: Any, **arguments: Any) -> Any:
    """Call a model; TRL selects from the logits' means by a mask, which on a GPU waits for how many there are."""
    outputs = model(**arguments)
    outputs.mean_logits = outputs.mean_logits.as_subclass(Selectable)
    return outputs


@contextlib.contextmanager
def without_optimizer_state() -> Iterator[None]:
    """Have training resume from a checkpoint's weights, step and learning rate, without its optimizer state.

    DeepSpeed refuses the state of another number of processes.
    """

    def load(engine: Any, path: str, load_module_strict: bool = True) -> None:
        loaded, _ = engine.load_checkpoint(path, load_module_strict=load_module_strict, load_optimizer_states=False)
        if loaded is None:
            raise ValueError(f"{path} has no weights of DeepSpeed")

    before = transformers.trainer.deepspeed_load_checkpoint
    transformers.trainer.deepspeed_load_checkpoint = load
    try:
        yield
    finally:
        transformers.trainer.deepspeed_load_checkpoint = before


def rows_of_batch(accelerator: Accelerator, rows: int) -> int:
    """Count the rows of this process's current batch without those that only fill up the last one.

    The last batches of the processes together hold the rows that are left, in order, and then some once more.

    Args:
        accelerator: of the trainer, while it goes through a data loader.
        rows: of the batch, those that fill it up included.

    """
    state = accelerator.gradient_state
    if not state.end_of_dataloader or state.remainder <= 0:
        return rows
    return int(min(max(state.remainder - accelerator.process_index * rows, 0), rows))
