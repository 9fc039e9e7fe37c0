"""The weights of a base model as its safetensors files describe them: names, shapes and types, none of the numbers."""

import hashlib
import json
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer.errors import RunError
from dporun_trainer.run_folder.model_files import TEMPLATES

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
    """Choose what is needed of a model's repository: weights in safetensors, configuration, tokenizer, processor.

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
    return weights + texts_of(names)


def texts_of(names: list[str]) -> list[str]:
    """Choose what a model's repository has besides weights: configuration, tokenizer, processor."""
    texts = [name for name in names if "/" not in name or str(PurePosixPath(name).parent) == TEMPLATES]
    return [name for name in texts if name.endswith(_TEXT_SUFFIXES)]


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
            raise unfit(f"{folder / INDEX} is torn: {error}", "Fetch the model again.") from error
        if missing := [part for part in parts if part not in names]:
            raise unfit(
                f"{len(missing)} of {len(parts)} shards of the model are missing in {folder}: {missing[0]}",
                "Fetch the model again.",
            )
        shards = [read_header(folder / part) for part in parts]
        contained = {(name, shard.path.name) for shard in shards for name in shard.tensors}
        if lost := [name for name, part in weight_map.items() if (name, part) not in contained]:
            raise unfit(f"{weight_map[lost[0]]} does not contain {lost[0]}, but the index names it", "Fetch it again.")
        return shards
    if WEIGHTS in names:
        return [read_header(folder / WEIGHTS)]
    if "adapter_config.json" in names and "config.json" not in names:
        raise unfit(f"{folder} holds an adapter, not a model", "Name its base model, or merge the adapter first.")
    _require_safetensors(names, [])
    raise unfit(f"{folder} holds no weights", f"It needs {WEIGHTS}, or {INDEX} with its shards.")


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
            raise unfit(f"{path} is a pointer of Git LFS, not the file itself", "Run `git lfs pull` there.")
        length = int.from_bytes(start, "little")
        if len(start) < 8 or not 0 < length <= min(_MAX_HEADER, size - 8):
            raise unfit(f"{path} is torn or no safetensors file ({size} bytes)", "Fetch it again.")
        try:
            header = json.loads(file.read(length))
            header.pop("__metadata__", None)
            tensors = {name: (tuple(entry["shape"]), str(entry["dtype"])) for name, entry in header.items()}
            end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise unfit(f"{path} has no readable header: {error}", "Fetch it again.") from error
    if 8 + length + end != size:
        raise unfit(f"{path} is torn: it has {size:,} bytes instead of {8 + length + end:,}", "Fetch it again.")
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


def main_dtype(shards: list[Shard]) -> str:
    """Type of most of the numbers, in torch's words."""
    numbers: Counter[str] = Counter()
    for shard in shards:
        for shape, dtype in shard.tensors.values():
            numbers[dtype] += math.prod(shape)
    return torch_type(numbers.most_common(1)[0][0])


def require_floats(dtype: str, folder: Path) -> None:
    """Refuse weights that are numbers of some quantization: cast to floats, as transformers would, they mean nothing.

    Raises:
        RunError: most of the weights are of such a type.

    """
    if dtype not in {"float64", "float32", "float16", "bfloat16"}:
        raise unfit(
            f"the weights in {folder} are {dtype}: the model is quantized, and its config.json does not say how",
            "Use its unquantized weights: an adapter merges into those only.",
        )


def torch_type(dtype: str) -> str:
    """Name of a type of safetensors in torch's words."""
    return _TORCH_TYPES.get(dtype, dtype.lower())


def _require_safetensors(names: list[str], weights: list[str]) -> None:
    pickles = [name for name in names if name.endswith(_PICKLES) and not name.startswith("training_args")]
    if pickles and not weights:
        raise unfit(
            f"the model has its weights as pickle ({pickles[0]}), which can run code when loaded",
            "Save it once more with save_pretrained(..., safe_serialization=True), or use a revision with safetensors.",
        )


def unfit(message: str, hint: str) -> RunError:
    """Refuse a model: what is wrong with it, and what to do."""
    return RunError(Reason.MODEL_INVALID, message, hint=hint)
