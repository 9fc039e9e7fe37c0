"""The base model: what is checked of its files before any GPU is held, without loading its weights."""

from pathlib import Path
from typing import Any

from dporun_api.run_config import Lora, Quantization
from dporun_trainer.architectures import modalities
from dporun_trainer.inputs.adapter_trial import try_adapter
from dporun_trainer.inputs.quantization_trial import try_quantization
from dporun_trainer.inputs.structure import build_empty, read_config, require_trainable
from dporun_trainer.inputs.tokenizer import check_tokenizer
from dporun_trainer.inputs.weights import Shard, fingerprint, main_dtype, read_shards, require_floats, torch_type, unfit
from dporun_trainer.loaded_weights import require_weights
from dporun_trainer.run_folder.prepared import ModelFacts


def check_model(folder: Path, lora: Lora, quantization: Quantization | None = None) -> ModelFacts:
    """Check the files of a model, and that the adapter fits it.

    Args:
        folder: with config, tokenizer and weights.
        lora: the adapter to be trained.
        quantization: of the weights in training.

    Raises:
        RunError: the model cannot be trained as it is; names the file, and what to do.

    """
    if not folder.is_dir():
        raise unfit(f"{folder} is not a folder", "Name the folder that holds config.json and the weights.")
    config = read_config(folder)
    shards = read_shards(folder)
    dtype = main_dtype(shards)
    require_floats(dtype, folder)
    empty = build_empty(config)
    require_trainable(empty)
    model, warnings = _filled(empty, shards, folder)
    vocabulary = int(model.get_input_embeddings().weight.shape[0])
    check_tokenizer(folder, vocabulary)
    trial = try_adapter(lambda: build_empty(config), lora)
    quantized = try_quantization(lambda: build_empty(config), quantization, lora)
    text = config.get_text_config()
    return ModelFacts(
        architecture=type(model).__name__,
        modalities=modalities(model),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        dtype=dtype,
        bytes=sum(shard.path.stat().st_size for shard in shards),
        hidden_size=_number(text, "hidden_size") or int(model.get_input_embeddings().weight.shape[1]),
        intermediate_size=_number(text, "intermediate_size"),
        layers=_number(text, "num_hidden_layers") or _layers(model),
        vocabulary=vocabulary,
        max_positions=getattr(text, "max_position_embeddings", None),
        lora_modules=trial.modules,
        lora_parameters=trial.parameters,
        quantized_parameters=quantized,
        takes_dropout=trial.takes_dropout,
        fingerprint=fingerprint(shards),
        warnings=tuple(warnings),
    )


def check_positions(folder: Path, facts: ModelFacts, longest: int) -> list[str]:
    """Compare the longest row, in tokens, with what the model was made for; returns warnings.

    Raises:
        RunError: the model has no position for the row's last tokens, and would crash.

    """
    if facts.max_positions is None or longest <= facts.max_positions:
        return []
    message = f"the longest row has {longest} tokens, the model was made for {facts.max_positions}"
    text = read_config(folder).get_text_config()
    if getattr(text, "rope_parameters", None) or getattr(text, "rope_theta", None):
        return [f"{message}: quality falls beyond; lower dpo.maxLength"]
    raise unfit(f"{message}, and cannot count further", f"Set dpo.maxLength to {facts.max_positions} or less.")


def say_dropout(facts: ModelFacts, lora: Lora) -> list[str]:
    """What becomes of a dropout that nobody asked for on layers that take none; returns warnings."""
    if facts.takes_dropout or lora.dropout is not None:
        return []
    return [f"lora.dropout is 0: the adapter is on the experts of {facts.architecture} as well, which take none"]


def say_modalities(facts: ModelFacts) -> list[str]:
    """What is not done for a model that reads more than text; returns warnings."""
    if not facts.modalities:
        return []
    return [
        f"{facts.architecture} reads {facts.reads} too: only its language model gets an adapter, trained on text; "
        f"what the tuned model makes of {facts.reads} is not evaluated"
    ]


def _filled(empty: Any, shards: list[Shard], folder: Path) -> tuple[Any, list[str]]:
    """Let transformers fill the model from the checkpoint's names, shapes and types alone: (model, warnings).

    Reading the numbers, which it would do for the meta device as well, takes minutes for a large model.

    Raises:
        RunError: the checkpoint does not hold the model's weights.

    """
    import torch  # noqa: PLC0415  heavy
    from transformers.utils import logging  # noqa: PLC0415

    tensors = {
        name: torch.empty(shape, dtype=getattr(torch, torch_type(dtype), torch.uint8), device="meta")
        for shard in shards
        for name, (shape, dtype) in shard.tensors.items()
    }
    level = logging.get_verbosity()
    logging.set_verbosity_error()  # transformers' own report of what is amiss
    logging.disable_progress_bar()
    try:
        model, info = type(empty).from_pretrained(
            None,
            config=empty.config,
            state_dict=tensors,
            device_map="meta",
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except RuntimeError as error:  # its message points to the report
        raise unfit(
            f"the weights in {folder} cannot be converted into those of {type(empty).__name__}: of some that belong "
            "together, such as the experts of a layer, not all are there, or their shapes differ",
            "Fetch the whole model again, or use the config.json that the weights were saved with.",
        ) from error
    finally:
        logging.set_verbosity(level)
    return model, require_weights(model, info, folder)


def _number(config: Any, name: str) -> int | None:
    """Number in a configuration; the largest, where layers differ."""
    value = getattr(config, name, None)
    return max(value, default=None) if isinstance(value, list | tuple) else value


def _layers(model: Any) -> int:
    from torch.nn import ModuleList  # noqa: PLC0415  heavy

    return max(len(module) for module in model.modules() if isinstance(module, ModuleList))
