"""The functions of TRL, transformers, accelerate and DeepSpeed on whose inside trl_internals.py relies.

UPSTREAM names each of them, the line that matters, and what breaks when it changes. A test compares the source of each
with the hash kept here. When it fails after an update of a library:

1. read the function again, and the code of trl_internals.py that depends on it;
2. run tests/trainer/training/test_attempt.py and test_resume.py, which compare with plain TRL and with a run that
   nobody interrupted;
3. only then renew ``line`` and ``sha256``: the test prints the new hash.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Upstream:
    """A function of a library on whose inside trl_internals.py relies.

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
        "trl.trainer.dpo_trainer:DPOTrainer._prepare_dataset",
        'dataset = dataset.filter(lambda example: len(example["prompt_ids"]) < args.max_length, **map_kwargs)',
        ("_prepare_dataset",),
        "prepare tokenizes instead of it (inputs/encoding.py), and training would see other tokens than TRL's.",
        "eca559d5fb9b71d4",
    ),
    Upstream(
        "trl.trainer.dpo_trainer:DPOTrainer._compute_loss",
        "outputs = model(**model_kwargs, labels=labels, fused_lm_head=True)",
        ("_compute_loss", "_metrics", "_total_train_tokens"),
        "Validation asks the model for the same values of each token, and takes the same of them: a change of what "
        "training computes would leave validation behind. Its losses are in dporun_trainer.objective. What it gathers "
        "for the log, we postpone: it may calculate with that only as dporun_trainer.training.postponed allows.",
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
