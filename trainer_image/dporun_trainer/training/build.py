"""Put a training process together: device, model, data, trainer, and the checkpoint to go on from."""

import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import torch
import transformers
from peft import LoraConfig, load_peft_weights, set_peft_model_state_dict
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig

from dporun_api import run_folder as layout
from dporun_api.files import read_json
from dporun_api.run_config import ResumePolicy, RunConfig
from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer.errors import RunError
from dporun_trainer.run_folder import checkpoints
from dporun_trainer.run_folder.checkpoints import Checkpoint
from dporun_trainer.run_folder.prepared import Prepared
from dporun_trainer.training import callbacks
from dporun_trainer.training.memory import Shape
from dporun_trainer.training.settings import Machine, Precision, Settings, decide, decide_plan, trainer_arguments
from dporun_trainer.training.trainer import Run, RunTrainer
from dporun_trainer.training.trl_internals import use_torch_collectives

_DTYPES: dict[Precision, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
_NOT_IN_IDENTITY = {"logging_steps", "early_stopping_patience", "stop_on_unstable", "precision"}


def build(
    config: RunConfig, prepared: Prepared, directory: Path, stop: threading.Event
) -> tuple[RunTrainer, Checkpoint | None]:
    """Load everything, make the trainer and find the checkpoint that it goes on from.

    Raises:
        RunError: the configuration asks for what this machine, model or number of processes cannot do.

    """
    use_torch_collectives()
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world != config.topology.world_size:
        raise RunError(
            Reason.INVALID_SPEC,
            f"{world} training processes were started, but distributed.nodes times distributed.processesPerNode is "
            f"{config.topology.nodes} * {config.topology.processes_per_node} = {config.topology.world_size}",
        )
    machine = this_machine(config)
    settings = decide(
        config,
        machine,
        _shape(config, prepared),
        train_rows=prepared.dataset.train_rows,
        validation_rows=prepared.dataset.validation_rows,
    )
    identity = _identity(config, prepared, settings)
    checkpoint = checkpoint_to_resume(config, directory, identity)
    arguments = DPOConfig(**trainer_arguments(config, settings, output_dir=str(directory), cuda=machine.cuda))
    tokenizer = AutoTokenizer.from_pretrained(prepared.model_path)
    data = datasets.load_dataset(
        "json",
        data_files={"train": prepared.train_path, "validation": prepared.validation_path},
        cache_dir=str(directory / layout.INPUTS / "cache"),
    )
    trainer = RunTrainer(
        run=Run(config, settings, machine, directory, identity, stop),
        model=_base_model(prepared.model_path, settings),
        args=arguments,
        train_dataset=data["train"],
        eval_dataset=data["validation"],
        processing_class=tokenizer,
        peft_config=_lora(config),
    )
    rows = {"train_rows": len(trainer.train_dataset), "validation_rows": len(trainer.eval_dataset)}
    plan, steps_per_epoch = decide_plan(config, **rows)  # from the rows that are left, should TRL have dropped some
    trainer.run = replace(trainer.run, settings=replace(settings, plan=plan, steps_per_epoch=steps_per_epoch))
    if prepared.adapter_path is not None:
        _start_from(trainer, Path(prepared.adapter_path), config)
    trainer.remove_callback(transformers.PrinterCallback)
    for callback in (
        callbacks.Continuity(trainer, checkpoint),
        callbacks.Schedule(trainer),
        callbacks.Stopping(trainer),
        callbacks.Pruning(trainer),
    ):
        trainer.add_callback(callback)
    return trainer, checkpoint


def this_machine(config: RunConfig) -> Machine:
    """Describe what this process runs on.

    Raises:
        RunError: the node has GPUs, but fewer than processes.

    """
    processes = config.topology.processes_per_node
    if not torch.cuda.is_available():
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // processes
        return Machine(cuda=False, bf16=True, memory=memory, name="the CPU")
    if torch.cuda.device_count() < processes:
        raise RunError(
            Reason.INVALID_SPEC,
            f"distributed.processesPerNode is {processes}, but this node has {torch.cuda.device_count()} GPUs",
            hint="Request as many GPUs as processes: resources.gpusPerNode.",
        )
    properties = torch.cuda.get_device_properties(int(os.environ.get("LOCAL_RANK", "0")))
    return Machine(
        cuda=True,
        bf16=torch.cuda.is_bf16_supported(including_emulation=False),
        memory=properties.total_memory,
        name=properties.name,
    )


def checkpoint_to_resume(config: RunConfig, directory: Path, identity: dict[str, object]) -> Checkpoint | None:
    """Find the checkpoint that this attempt goes on from.

    Raises:
        RunError: there is one, but going on from it would not continue the same run.

    """
    if config.checkpoints.resume is ResumePolicy.NEVER:
        return None
    newest = checkpoints.newest_complete(checkpoints.complete(directory))
    if newest is None:
        return None
    differing = checkpoints.differences(newest.marker.identity, identity)
    if differing:
        raise RunError(
            Reason.INVALID_SPEC,
            f"{newest.path.name} was saved by a different run, so it cannot be continued: {'; '.join(differing)}",
            hint="Set these back, give the run a new name, or start it again with checkpoints.resume: never.",
        )
    return newest


def _shape(config: RunConfig, prepared: Prepared) -> Shape:
    longest = prepared.lint.train.total.maximum if prepared.lint.train.total else config.dpo.max_length
    model = AutoConfig.from_pretrained(prepared.model_path).get_text_config()
    return Shape(
        parameters=prepared.model.parameters,
        trainable=prepared.model.lora_parameters,
        hidden=prepared.model.hidden_size,
        intermediate=getattr(model, "intermediate_size", None) or 4 * prepared.model.hidden_size,
        layers=prepared.model.layers,
        sequences=2 * config.training.per_device_batch_size,
        length=min(longest, config.dpo.max_length),
        value_bytes=2,
        lora_dropout=config.lora.dropout > 0,
        shards=config.topology.world_size,
    )


def _identity(config: RunConfig, prepared: Prepared, settings: Settings) -> dict[str, object]:
    """List what a checkpoint and an attempt must have in common for the attempt to go on exactly."""
    training = config.training.model_dump(mode="json", exclude=_NOT_IN_IDENTITY)
    return {
        "model": config.model.uri,
        "revision": prepared.model_revision,
        "dataset": prepared.dataset.fingerprint,
        **config.dpo.model_dump(mode="json", exclude={"precompute_ref_log_probs"}),
        **{f"lora.{name}": value for name, value in config.lora.model_dump(mode="json").items()},
        **training,
        "precision": settings.precision,
        "worldSize": config.topology.world_size,
        "zeroStage": config.topology.deepspeed.zero_stage,
        "offloadOptimizer": config.topology.deepspeed.offload_optimizer,
    }


def _base_model(path: str, settings: Settings) -> Any:
    """Load the base model without any dropout of its own: it is the reference, so it must answer the same every time.

    LoRA's dropout stays; TRL's disable_dropout would remove both.
    """
    config = AutoConfig.from_pretrained(path)
    for name, value in vars(config.get_text_config()).items():
        if isinstance(value, float) and ("dropout" in name or name.endswith("_pdrop")):
            setattr(config.get_text_config(), name, 0.0)
    return AutoModelForCausalLM.from_pretrained(path, config=config, dtype=_DTYPES[settings.precision])


def _lora(config: RunConfig) -> LoraConfig:
    modules = config.lora.target_modules
    return LoraConfig(
        r=config.lora.rank,
        lora_alpha=config.lora.alpha,
        lora_dropout=config.lora.dropout,
        target_modules="all-linear" if modules == ("all-linear",) else list(modules),
        task_type="CAUSAL_LM",
    )


def _start_from(trainer: RunTrainer, adapter: Path, config: RunConfig) -> None:
    """Load an earlier run's adapter as the starting point; the reference stays the base model.

    Raises:
        RunError: the adapter has another shape than this run's.

    """
    saved = read_json(adapter / "adapter_config.json")
    for name, now in (("r", config.lora.rank), ("lora_alpha", config.lora.alpha)):
        if saved.get(name) != now:
            raise RunError(
                Reason.INVALID_SPEC,
                f"the adapter to start from has {name} {saved.get(name)}, this run has {now}",
                hint="Set lora.rank and lora.alpha to those of the earlier run.",
            )
    result = set_peft_model_state_dict(trainer.model, load_peft_weights(str(adapter), device="cpu"))
    missing = [name for name in result.missing_keys if "lora_" in name]
    if missing or result.unexpected_keys:
        raise RunError(
            Reason.INVALID_SPEC,
            f"the adapter to start from adapts other layers: {len(missing)} of this run's have no weights in it, "
            f"{len(result.unexpected_keys)} of its layers are not adapted here",
            hint="Set lora.targetModules to those of the earlier run.",
        )
