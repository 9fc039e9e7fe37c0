"""The base model: what is checked of its files before any GPU is held, without loading its weights."""

import hashlib
import json
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dporun_api.run_config import Lora
from dporun_api.text import shorten
from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer.adapters import ALL_LINEAR, lora_arguments
from dporun_trainer.errors import RunError
from dporun_trainer.run_folder.prepared import ModelFacts

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
_PICKLES = (".bin", ".pt", ".pth", ".ckpt")
_TEXT_SUFFIXES = (".json", ".jinja", ".txt", ".model", ".tiktoken")
_TORCH_TYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32",
    "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2",
}  # fmt: skip
_MAX_HEADER = 100 * 2**20
_SAMPLES, _SAMPLE_BYTES = 64, 2**16


@dataclass(frozen=True)
class Shard:
    """The header of a safetensors file: shape and type of every tensor, and where the data begins."""

    path: Path
    tensors: dict[str, tuple[tuple[int, ...], str]]
    data_start: int


def wanted(names: list[str]) -> list[str]:
    """Choose what is needed of a model's repository: weights in safetensors, configuration, tokenizer.

    Raises:
        RunError: there are weights, but none in safetensors.

    """
    top = [name for name in names if "/" not in name]
    weights = [name for name in top if name.endswith(".safetensors")]
    if INDEX in top:  # other files of weights, such as consolidated ones, would be fetched for nothing
        weights = [name for name in weights if name.startswith("model-")] or weights
    elif WEIGHTS in top:
        weights = [WEIGHTS]
    _require_safetensors(top, weights)
    return weights + [name for name in top if name.endswith(_TEXT_SUFFIXES)]


def check_model(folder: Path, lora: Lora) -> ModelFacts:
    """Check the files of a model, and that the adapter fits it.

    Args:
        folder: with config, tokenizer and weights.
        lora: the adapter to be trained.

    Raises:
        RunError: the model cannot be trained as it is; names the file, and what to do.

    """
    if not folder.is_dir():
        raise _invalid(f"{folder} is not a folder", "Name the folder that holds config.json and the weights.")
    config = _config(folder)
    shards = read_shards(folder)
    model = _empty_model(config)
    stored = {name: shape for shard in shards for name, (shape, _) in shard.tensors.items()}
    parameters = sum(parameter.numel() for parameter in model.parameters())
    stored_numbers = sum(math.prod(shape) for shape in stored.values())
    if stored_numbers < parameters:
        raise _invalid(
            f"the weights in {folder} hold {stored_numbers:,} numbers, but {type(model).__name__} of config.json has "
            f"{parameters:,} parameters: some would start at random",
            "Fetch the whole model again, or correct config.json.",
        )
    vocabulary = int(model.get_input_embeddings().weight.shape[0])
    _check_tokenizer(folder, vocabulary)
    modules, trainable = _adapt(model, lora)
    text = config.get_text_config()
    return ModelFacts(
        architecture=type(model).__name__,
        parameters=parameters,
        dtype=_dtype(shards),
        bytes=sum(shard.path.stat().st_size for shard in shards),
        hidden_size=int(text.hidden_size),
        layers=int(text.num_hidden_layers),
        vocabulary=vocabulary,
        max_positions=getattr(text, "max_position_embeddings", None),
        lora_modules=modules,
        lora_parameters=trainable,
        fingerprint=fingerprint(shards),
    )


def load_tokenizer(folder: Path) -> Any:
    """Load the tokenizer of a model, without running code that comes with it.

    Raises:
        RunError: there is none, or it cannot be read.

    """
    from transformers import AutoTokenizer  # noqa: PLC0415  heavy

    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # transformers raises whatever it stumbles on
        raise _invalid(
            f"the tokenizer in {folder} cannot be loaded: {error}",
            "A model needs tokenizer.json (or its older forms) and tokenizer_config.json; "
            "code that comes with a model is never run.",
        ) from error


def check_positions(folder: Path, facts: ModelFacts, longest: int) -> list[str]:
    """Compare the longest row, in tokens, with what the model was made for; returns warnings.

    Raises:
        RunError: the model has no position for the row's last tokens, and would crash.

    """
    if facts.max_positions is None or longest <= facts.max_positions:
        return []
    message = f"the longest row has {longest} tokens, the model was made for {facts.max_positions}"
    text = _config(folder).get_text_config()
    if getattr(text, "rope_parameters", None) or getattr(text, "rope_theta", None):
        return [f"{message}: quality falls beyond; lower dpo.maxLength"]
    raise _invalid(f"{message}, and cannot count further", f"Set dpo.maxLength to {facts.max_positions} or less.")


def read_shards(folder: Path) -> list[Shard]:
    """Read the headers of a model's weights, and check that every file is there and whole.

    Raises:
        RunError: weights are missing, torn or not in safetensors.

    """
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    if INDEX in names:
        try:
            weight_map = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"]
            parts = sorted(set(weight_map.values()))
        except (ValueError, KeyError, AttributeError) as error:
            raise _invalid(f"{folder / INDEX} is torn: {error}", "Fetch the model again.") from error
        if missing := [part for part in parts if part not in names]:
            raise _invalid(
                f"{len(missing)} of {len(parts)} shards of the model are missing in {folder}: {missing[0]}",
                "Fetch the model again.",
            )
        shards = [read_header(folder / part) for part in parts]
        contained = {(name, shard.path.name) for shard in shards for name in shard.tensors}
        if lost := [name for name, part in weight_map.items() if (name, part) not in contained]:
            raise _invalid(
                f"{weight_map[lost[0]]} does not contain {lost[0]}, but the index names it", "Fetch it again."
            )
        return shards
    if WEIGHTS in names:
        return [read_header(folder / WEIGHTS)]
    if "adapter_config.json" in names and "config.json" not in names:
        raise _invalid(f"{folder} holds an adapter, not a model", "Name its base model, or merge the adapter first.")
    _require_safetensors(names, [])
    raise _invalid(f"{folder} holds no weights", f"It needs {WEIGHTS}, or {INDEX} with its shards.")


def read_header(path: Path) -> Shard:
    """Read the header of a safetensors file, and check that the file has the size that the header implies.

    The format: 8 bytes little-endian length, that much JSON, then the tensors without gaps
    (https://github.com/huggingface/safetensors#format).

    Raises:
        RunError: the file is torn, or is something else.

    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        if start.startswith(b"version "):
            raise _invalid(f"{path} is a pointer of Git LFS, not the file itself", "Run `git lfs pull` there.")
        length = int.from_bytes(start, "little")
        if len(start) < 8 or not 0 < length <= min(_MAX_HEADER, size - 8):
            raise _invalid(f"{path} is torn or no safetensors file ({size} bytes)", "Fetch it again.")
        try:
            header = json.loads(file.read(length))
            header.pop("__metadata__", None)
            tensors = {name: (tuple(entry["shape"]), str(entry["dtype"])) for name, entry in header.items()}
            end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise _invalid(f"{path} has no readable header: {error}", "Fetch it again.") from error
    if 8 + length + end != size:
        raise _invalid(f"{path} is torn: it has {size:,} bytes instead of {8 + length + end:,}", "Fetch it again.")
    return Shard(path, tensors, 8 + length)


def fingerprint(shards: list[Shard]) -> str:
    """SHA-256 over the tensors' names, shapes and types, and over samples of their data.

    It differs between any two models of which one was trained further, without reading all of either.
    """
    digest = hashlib.sha256()
    for shard in shards:
        digest.update(json.dumps(sorted(shard.tensors.items())).encode())
        span = max(shard.path.stat().st_size - shard.data_start - _SAMPLE_BYTES, 0)
        with shard.path.open("rb") as file:
            for sample in range(_SAMPLES):
                file.seek(shard.data_start + span * sample // (_SAMPLES - 1))
                digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()


def _config(folder: Path) -> Any:
    from transformers import AutoConfig  # noqa: PLC0415  heavy

    path = folder / "config.json"
    if not path.is_file():
        if (folder / "adapter_config.json").is_file():
            raise _invalid(f"{folder} holds an adapter, not a model", "Name its base model, or merge it first.")
        raise _invalid(f"{path} is missing", "Name the folder of a transformers model.")
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # transformers raises whatever it stumbles on
        if "auto_map" in path.read_text(encoding="utf-8", errors="replace"):
            raise _invalid(
                f"the model in {folder} needs code that comes with it, which is never run",
                "Use a model whose architecture is part of transformers.",
            ) from error
        raise _invalid(
            f"{path} cannot be read: {shorten(str(error), 300)}", "Correct it, or fetch it again."
        ) from error
    if getattr(config, "quantization_config", None):
        raise _invalid(
            f"the model in {folder} is quantized", "Use its unquantized weights: an adapter merges into those only."
        )
    return config


def _empty_model(config: Any) -> Any:
    """Build the model on torch's meta device: all of its structure, none of its weights."""
    import torch  # noqa: PLC0415  heavy
    from transformers import AutoModelForCausalLM  # noqa: PLC0415

    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except Exception as error:  # transformers raises whatever it stumbles on
        if getattr(config, "auto_map", None):
            raise _invalid(
                f"a {config.model_type} model needs code that comes with it, which is never run",
                "Use a model whose architecture is part of transformers.",
            ) from error
        raise _invalid(
            f"no causal language model can be built from config.json ({config.model_type}): {shorten(str(error), 300)}",
            "Use a decoder-only language model, such as Llama or Qwen.",
        ) from error


def _adapt(model: Any, lora: Lora) -> tuple[int, int]:
    """Put the adapter into the empty model: (layers that get one, trainable parameters)."""
    from peft import LoraConfig, get_peft_model  # noqa: PLC0415  heavy
    from peft.tuners.lora import LoraLayer  # noqa: PLC0415

    names = [name for name, _ in model.named_modules()]
    head = next((name for name, module in model.named_modules() if module is model.get_output_embeddings()), None)
    for target in () if lora.target_modules == ALL_LINEAR else lora.target_modules:
        matches = [name for name in names if name == target or name.endswith("." + target)]
        if not matches:
            known = sorted({name.rpartition(".")[2] for name, module in model.named_modules() if _linear(module)})
            raise _invalid(
                f"lora.targetModules: the model has no layer named {target!r}",
                f"Its linear layers are {', '.join(known)}; all-linear takes all of them.",
            )
        if head in matches:
            raise _invalid(f"lora.targetModules: {target!r} is the output head, which gets no adapter", "Leave it out.")
    try:
        adapted = get_peft_model(model, LoraConfig(**lora_arguments(lora)))
    except ValueError as error:
        hint = "Set lora.dropout: 0." if "lora_dropout" in str(error) else "Check lora.targetModules."
        raise _invalid(f"the adapter does not fit the model: {error}", hint) from error
    modules = sum(isinstance(module, LoraLayer) for module in adapted.modules())
    return modules, sum(parameter.numel() for parameter in adapted.parameters() if parameter.requires_grad)


def _linear(module: Any) -> bool:
    return type(module).__name__ in {"Linear", "Conv1D"}


def _check_tokenizer(folder: Path, vocabulary: int) -> None:
    tokenizer = load_tokenizer(folder)
    if tokenizer.eos_token_id is None:
        raise _invalid(
            f"the tokenizer in {folder} has no EOS token, so that no answer would end",
            'Set "eos_token" in its tokenizer_config.json.',
        )
    highest = max(tokenizer.get_vocab().values(), default=0)
    if highest >= vocabulary:
        raise _invalid(
            f"the tokenizer in {folder} has token ids up to {highest}, the model's embedding has {vocabulary} rows",
            "Use the tokenizer that belongs to the model, or resize the model's embedding.",
        )


def _dtype(shards: list[Shard]) -> str:
    numbers: Counter[str] = Counter()
    for shard in shards:
        for shape, dtype in shard.tensors.values():
            numbers[dtype] += math.prod(shape)
    most = numbers.most_common(1)[0][0]
    return _TORCH_TYPES.get(most, most.lower())


def _require_safetensors(names: list[str], weights: list[str]) -> None:
    pickles = [name for name in names if name.endswith(_PICKLES) and not name.startswith("training_args")]
    if pickles and not weights:
        raise _invalid(
            f"the model has its weights as pickle ({pickles[0]}), which can run code when loaded",
            "Save it once more with save_pretrained(..., safe_serialization=True), or use a revision with safetensors.",
        )


def _invalid(message: str, hint: str) -> RunError:
    return RunError(Reason.MODEL_INVALID, message, hint=hint)
