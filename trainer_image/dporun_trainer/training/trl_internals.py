"""The fence around TRL, transformers, accelerate and DeepSpeed: each private part of theirs that the trainer touches.

No other module of the trainer uses a private name of these libraries; a test reads all of them. RunTrainer (trainer.py)
builds on FencedTrainer, which offers the private parts under public names and turns private methods into hooks.

UPSTREAM names every function of theirs that this file relies on, the line that matters, and what breaks when it
changes. A test compares the source of each with the hash kept here. When it fails after an update of a library:

1. read the function again, and the code below that depends on it;
2. run tests/trainer/training/test_attempt.py and test_resume.py, which compare with plain TRL and with a run that
   nobody interrupted;
3. only then renew ``line`` and ``sha256``: the test prints the new hash.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import deepspeed.ops
import torch
import transformers
from accelerate import Accelerator
from trl import DPOTrainer

from dporun_trainer.run_folder.running_totals import RunningTotals
from dporun_trainer.training.validation import ValidatedRow


@dataclass(frozen=True)
class Upstream:
    """A function of a library on whose inside this file relies.

    Attributes:
        function: where it is: module, then class and function.
        line: the line of its source that matters.
        names: private names that we take from there.
        breaks: what goes wrong when it changes.
        sha256: first 16 digits of the SHA-256 of its source, without comment lines and blank lines.

    """

    function: str
    line: str
    names: tuple[str, ...]
    breaks: str
    sha256: str


UPSTREAM = (
    # Where training starts, ends and saves
    Upstream(
        "transformers.trainer:Trainer._inner_training_loop",
        "self._tr_loss = torch.tensor(0.0, device=args.device)",
        ("_run_epoch", "_tr_loss", "_total_loss_scalar", "_globalstep_last_logged", "_initial_global_step"),
        "The sums start anew before on_train_begin, in which we restore them. Set later, they would begin at zero: "
        "train_loss and the first log entry after a resume would only count this attempt.",
        "dc0574a353ded77b",
    ),
    Upstream(
        "transformers.trainer:Trainer._run_epoch",
        "if self.control.should_epoch_stop or self.control.should_training_stop:",
        ("_run_epoch",),
        "It looks whether training is over only after a step, so we look before. Called otherwise than with keywords, "
        "or with steps made elsewhere, a resumed run makes one step too many.",
        "f6339c3ff4b7407b",
    ),
    Upstream(
        "transformers.trainer:Trainer._maybe_log_save_evaluate",
        "tr_loss -= tr_loss",
        ("_tr_loss", "_evaluate", "_save_checkpoint"),
        "It validates before it saves, so that a checkpoint knows its validation loss, and empties the sum of losses "
        "in place, so we restore it in place.",
        "d3d18f9a3426821c",
    ),
    Upstream(
        "transformers.trainer:Trainer._finalize_training",
        "num_steps_trained = self.state.global_step - self._initial_global_step",
        ("_initial_global_step", "_total_loss_scalar"),
        "train_loss divides by these steps; from 0 on, they are those of all attempts.",
        "e10bb9ae9c0bd123",
    ),
    Upstream(
        "transformers.trainer:Trainer._evaluate",
        "metrics = self.evaluate(ignore_keys=ignore_keys_for_eval)",
        ("_evaluate",),
        "We also call it for the validation that an earlier attempt had no time for, without a trial.",
        "af9114016c0e81c5",
    ),
    Upstream(
        "transformers.trainer:Trainer._save_checkpoint",
        "self.save_model(output_dir, _internal_call=True)",
        ("_save_checkpoint",),
        "Every process writes its part into output_dir/checkpoint-STEP and returns only then; we mark it complete.",
        "6b93fb5a53a54d67",
    ),
    Upstream(
        "trl.trainer.dpo_trainer:DPOTrainer._save_checkpoint",
        "self.create_model_card(model_name=model_name)",
        ("_save_checkpoint",),
        "The only place that asks for TRL's model card, which we do not want.",
        "381f6a655ea9b681",
    ),
    Upstream(
        "transformers.trainer:Trainer.save_model",
        "state_dict = self.accelerator.get_state_dict(self.deepspeed)",
        (),
        "Under DeepSpeed it copies all weights to save the adapter's; we replace it. What it comes to do besides, such "
        "as pushing to the Hub, is missing here.",
        "3e9ee9d224562225",
    ),
    Upstream(
        "transformers.trainer:Trainer._save",
        "self.model.save_pretrained(output_dir, state_dict=state_dict, is_main_process=self.args.should_save)",
        ("_save",),
        "It writes the weights that it is given, and the tokenizer.",
        "9aec36acd2d4c562",
    ),
    # What a validation and a log entry consist of
    Upstream(
        "transformers.trainer:Trainer.evaluation_loop",
        "losses, logits, labels = self.prediction_step(model, inputs, prediction_loss_only, ignore_keys=ignore_keys)",
        (),
        "Every process calls prediction_step equally often, so the processes may agree there on stopping. Without "
        "losses from it, there is no loss among the metrics that it returns, and we add it with the others.",
        "1fe21799ff2a9b9a",
    ),
    Upstream(
        "transformers.trainer:Trainer._prepare_input",
        'kwargs.update({"dtype": self.accelerator.state.deepspeed_plugin.hf_ds_config.dtype()})',
        ("_prepare_inputs",),
        "It casts every number with a fraction to the dtype of the model, the log-probabilities of the reference as "
        "well: sums of hundreds of nats, which keep eight bits in bfloat16. We put these back.",
        "443ef7a5cab4ba00",
    ),
    Upstream(
        "trl.trainer.dpo_trainer:DPOTrainer._compute_loss",
        "outputs = model(**model_kwargs, labels=labels, fused_lm_head=True)",
        ("_metrics", "_total_train_tokens"),
        "Validation asks the model for the same values of each token, and takes the same of them: a change of what "
        "training computes would leave validation behind. Its losses are in dporun_trainer.objective.",
        "14f261291c1c0588",
    ),
    Upstream(
        "trl.trainer.dpo_trainer:DPOTrainer.compute_ref_log_probs",
        "ref_per_token_logps = model(**model_kwargs, labels=labels, fused_lm_head=True).log_probs",
        (),
        "The reference of a validation whose rows have none stored.",
        "4591e72b791b586e",
    ),
    Upstream(
        "trl.trainer.dpo_trainer:DPOTrainer.log",
        "metrics = {key: sum(val) / len(val) for key, val in self._metrics[mode].items()}  # average the metrics",
        ("_metrics",),
        "It adds the means of batches that _compute_loss has left; validation leaves none.",
        "1320e17c8b626d54",
    ),
    Upstream(
        "trl.trainer.dpo_trainer:DPOTrainer.prediction_step",
        "loss = self.compute_loss(model, inputs, return_outputs=False)",
        (),
        "We replace it. What it comes to do besides is missing in validation.",
        "fd7735f8e9461ead",
    ),
    Upstream(
        "trl.trainer.dpo_trainer:DataCollatorForPreference.torch_call",
        "input_ids = prompt_chosen_ids + prompt_rejected_ids",
        (),
        "A batch has the chosen sequences of its rows, then the rejected ones.",
        "4633e260a00e6e06",
    ),
    Upstream(
        "accelerate.data_loader:DataLoaderStateMixin.begin",
        "self.remainder = length % self.total_batch_size",
        (),
        "remainder counts the rows of the last batch, over all processes, that are no repetition; 0 when it is full, "
        "-1 when nobody knows.",
        "b65a933cd45a962d",
    ),
    # DeepSpeed
    Upstream(
        "transformers.integrations.deepspeed:deepspeed_load_checkpoint",
        "load_optimizer_states=True,",
        (),
        "The only way in which training resumes; we replace it where the optimizer state cannot be carried over.",
        "5bfd8aed5c1e9521",
    ),
    Upstream(
        "deepspeed.runtime.engine:DeepSpeedEngine.load_checkpoint",
        "self.optimizer._restore_from_bit16_weights()",
        (),
        "Without optimizer states it takes the weights into the optimizer, else the first step would undo them.",
        "350690db1ed314e0",
    ),
    Upstream(
        "deepspeed.comm.torch:build_shm_op",
        "if builder is None or not deepspeed.ops.__compatible_ops__.get(builder.NAME, False):",
        ("__compatible_ops__",),
        "It is asked before the operator is compiled. Asked elsewhere, training on CPU needs a C++ compiler.",
        "5ee7daeb8dd5b011",
    ),
    Upstream(
        "deepspeed.ops:__getattr__",
        'globals()["__compatible_ops__"] = _probe_compatible_ops()',
        ("__compatible_ops__",),
        "The table is made once, so a change to it persists.",
        "4748fe7cd78c75d3",
    ),
)


_REFERENCE = ("ref_chosen_logps", "ref_rejected_logps")
"""Columns of a batch with the log-probabilities that the reference gives to the responses, where they are stored."""


def use_torch_collectives() -> None:
    """Keep DeepSpeed from compiling its shared-memory collectives for CPU; torch's gloo does the same work.

    They would be compiled at run time, which needs a compiler that the image does not have.
    """
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


class FencedTrainer(DPOTrainer):
    """DPOTrainer whose private parts have public names, and whose private methods are hooks to override."""

    # Hooks

    def around_validation(self, validate: Callable[[], dict[str, float]]) -> dict[str, float]:
        """Run a validation that is due in training, and return its metrics."""
        return validate()

    def around_checkpoint(self, save: Callable[[], None]) -> None:
        """Save the checkpoint of the current step. Collective: every process saves its part."""
        save()

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
        """Read what the training loop of this process has added up since the start of the run."""
        return RunningTotals(
            loss_since_log=self._tr_loss.item(),
            loss_total=self._total_loss_scalar,
            last_logged=self._globalstep_last_logged,
            metrics={name: [float(value) for value in values] for name, values in self._metrics["train"].items()},
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

    def router_loss(self) -> float:
        """Mean of the router's loss since the last log entry of training; 0 where it is no part of the loss."""
        losses = self._metrics["train"].get("aux_loss")
        return sum(losses) / len(losses) if losses else 0.0

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
