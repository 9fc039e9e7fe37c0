"""Put a training process together: decide what it does, load model and data, make the trainer."""

import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import transformers
from peft import LoraConfig, load_peft_weights, set_peft_model_state_dict
from transformers import AutoConfig, AutoTokenizer
from trl import DPOConfig

from dporun_api.files import read_json
from dporun_api.run_config import Quantization, RunConfig
from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer.adapters import lora_arguments, require_same_layers, require_same_shape, used_targets
from dporun_trainer.architectures import language_model, load_model
from dporun_trainer.device import this_machine
from dporun_trainer.errors import RunError
from dporun_trainer.machine import Machine
from dporun_trainer.memory import Shape
from dporun_trainer.precision import DTYPES, Arithmetic
from dporun_trainer.run_folder import RunFolder
from dporun_trainer.run_folder.prepared import Prepared, Tokens
from dporun_trainer.run_folder.tokens import tokenizer_digest
from dporun_trainer.training import callbacks
from dporun_trainer.training.agreement import LOADING_SECONDS, agree_on_start, allow, anywhere
from dporun_trainer.training.arguments import trainer_arguments
from dporun_trainer.training.plan import TrainingPlan, decide_plan
from dporun_trainer.training.resume import checkpoint_to_resume, run_identity
from dporun_trainer.training.trainer import Diagnose, RunTrainer, TrainingRun
from dporun_trainer.training.trl_internals import use_torch_collectives


def decide(config: RunConfig, prepared: Prepared) -> tuple[Machine, TrainingPlan]:
    """Look at what this process runs on and decide what it does, before anything large is loaded.

    Raises:
        RunError: the configuration asks for what this machine or number of processes cannot do.

    """
    _own_tokens(prepared)
    _require_world_size(config)
    machine = this_machine(config.topology.processes_per_node, gpus=config.topology.gpus_per_node)
    rows, lengths = prepared.dataset, prepared.lint.train.total
    shape = Shape.of(config, prepared.model, lengths.maximum if lengths else None)
    plan = decide_plan(config, machine, shape, train_rows=rows.train_rows, validation_rows=rows.validation_rows)
    return machine, plan


def build(
    config: RunConfig,
    prepared: Prepared,
    folder: RunFolder,
    stop: threading.Event,
    diagnose: Diagnose,
    decided: tuple[Machine, TrainingPlan],
) -> RunTrainer | None:
    """Make the trainer of one attempt; its ``run`` says what was decided, and which checkpoint it goes on from.

    None when an earlier attempt has finished training. Collective.

    Raises:
        RunError: the processes or the checkpoints do not agree with one another, or with the configuration.

    """
    machine, plan = decided
    # Arguments are where transformers learns of DeepSpeed, and where the processes meet.
    use_torch_collectives()
    arguments = DPOConfig(**trainer_arguments(config, plan, output_dir=str(folder.path), cuda=machine.cuda))
    if anywhere(plan.gradient_checkpointing) and not plan.gradient_checkpointing:  # another's GPU has less memory free
        plan = replace(plan, gradient_checkpointing=True)
        arguments = DPOConfig(**trainer_arguments(config, plan, output_dir=str(folder.path), cuda=machine.cuda))
    identity = run_identity(config, prepared, plan)
    common = identity | {"steps": plan.schedule.steps, "precomputeRefLogProbs": plan.precompute_ref_log_probs}
    rank = int(os.environ.get("RANK", "0"))
    start = agree_on_start(folder, rank, lambda: checkpoint_to_resume(config, folder, identity), common)
    if start.trained:
        return None
    allow(LOADING_SECONDS)
    run = TrainingRun(
        config=config,
        plan=plan,
        machine=machine,
        folder=folder,
        identity=identity,
        resumed=start.checkpoint,
        trainable=prepared.model.lora_parameters,
        stop=stop,
        diagnose=diagnose,
    )

    # Load.
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    tokenizer = AutoTokenizer.from_pretrained(prepared.model_path)
    # Tokenized by prepare, and mapped into memory: the processes of a node share one copy.
    tokens = _own_tokens(prepared)
    train, validation = (datasets.Dataset.from_file(path) for path in (tokens.train_path, tokens.validation_path))

    # Make the trainer. TRL precomputes the base model's log-probabilities here.
    model = load_base(prepared.model_path, plan.precision, machine.device_map, config.model.quantization)
    dropout = config.lora.effective_dropout(takes_dropout=prepared.model.takes_dropout)
    trainer = RunTrainer(
        run=run,
        model=model,
        args=arguments,
        train_dataset=train,
        eval_dataset=validation,
        processing_class=tokenizer,
        peft_config=LoraConfig(**lora_arguments(config.lora, language_model(model), dropout=dropout)),
    )
    adapter = trainer.model.peft_config["default"]
    adapter.target_modules = used_targets(adapter.target_modules, trainer.model.targeted_module_names)
    _require_planned_rows(trainer)
    if prepared.adapter_path is not None:
        _start_from(trainer, Path(prepared.adapter_path), config)

    # Callbacks are called in this order: first restore totals, last delete what a new checkpoint made needless.
    trainer.remove_callback(transformers.PrinterCallback)
    for callback in (callbacks.Continuity, callbacks.ValidateAndSave, callbacks.Stopping, callbacks.Pruning):
        trainer.add_callback(callback(trainer))
    return trainer


def _own_tokens(prepared: Prepared) -> Tokens:
    """The tokens that prepare made.

    Raises:
        RunError: they are not those of the model's tokenizer as it is now: a model in a claim may change.

    """
    if prepared.tokens is None or tokenizer_digest(Path(prepared.model_path)) != prepared.tokens.tokenizer:
        raise RunError(
            Reason.NOT_PREPARED,
            f"the data was not prepared with the tokenizer and chat template that are in {prepared.model_path} now",
        )
    return prepared.tokens


def _require_world_size(config: RunConfig) -> None:
    topology, world = config.topology, int(os.environ.get("WORLD_SIZE", "1"))
    if world != topology.world_size:
        raise RunError(
            Reason.INVALID_SPEC,
            f"{world} training processes were started, but distributed.nodes times distributed.processesPerNode is "
            f"{topology.nodes} * {topology.processes_per_node} = {topology.world_size}",
        )


def _require_planned_rows(trainer: RunTrainer) -> None:
    """Make sure that there are the rows that prepare counted: with other steps, the last one would not be saved."""
    plan, kept = trainer.run.plan, (len(trainer.train_dataset), len(trainer.eval_dataset))
    if kept != (plan.train_rows, plan.validation_rows):
        raise RunError(
            Reason.TRAINER_ERROR,
            f"prepare counted {plan.train_rows} training and {plan.validation_rows} validation rows, but there are "
            f"{kept[0]} and {kept[1]}",
            hint="Delete the run's inputs/prepared.json, so that prepare runs again.",
        )


def load_base(
    path: str,
    arithmetic: Arithmetic,
    device_map: dict[str, str] | None = None,
    quantization: Quantization | None = None,
) -> Any:
    """Load the base model without any dropout of its own: it is the reference, so it must answer the same every time.

    LoRA's dropout stays; TRL's disable_dropout would remove both.

    Raises:
        RunError: the weights are not those of the model that its configuration describes.

    """
    config = AutoConfig.from_pretrained(path)
    for name, value in vars(config.get_text_config()).items():
        if isinstance(value, float) and ("dropout" in name or name.endswith("_pdrop")):
            setattr(config.get_text_config(), name, 0.0)
    if hasattr(config.get_text_config(), "output_router_logits"):  # TRL asks for them where the router has a loss
        config.get_text_config().output_router_logits = False
    return load_model(path, config=config, dtype=DTYPES[arithmetic], device_map=device_map, quantization=quantization)


def _start_from(trainer: RunTrainer, adapter: Path, config: RunConfig) -> None:
    """Load an earlier run's adapter as the starting point; the reference stays the base model.

    Raises:
        RunError: the adapter has another shape than this run's.

    """
    source = config.checkpoints.resume_from or str(adapter)
    require_same_shape(config.lora, read_json(adapter / "adapter_config.json"), source)
    result = set_peft_model_state_dict(trainer.model, load_peft_weights(str(adapter), device="cpu"))
    missing = [name for name in result.missing_keys if "lora_" in name]  # the frozen weights are missing by design
    require_same_layers(missing, result.unexpected_keys, source)
