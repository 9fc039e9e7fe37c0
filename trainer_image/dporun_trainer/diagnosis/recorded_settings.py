"""Collect a run's settings from the files that transformers, TRL and PEFT, or a script of one's own, leave of it."""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dporun_trainer.diagnosis.pickled import Opaque, attributes, read_saved
from dporun_trainer.diagnosis.remedies import RunValues
from dporun_trainer.run_folder import RunFolder
from dporun_trainer.run_folder.curves import number

_KEYS: Mapping[str, tuple[str, ...]] = {
    "learning_rate": ("learning_rate", "learningRate"),
    "epochs": ("num_train_epochs", "epochs", "num_epochs"),
    "per_device_batch_size": ("per_device_train_batch_size", "perDeviceBatchSize", "train_batch_size"),
    "gradient_accumulation_steps": ("gradient_accumulation_steps", "gradientAccumulationSteps"),
    "processes": ("world_size", "num_devices"),
    "max_grad_norm": ("max_grad_norm", "maxGradNorm"),
    "beta": ("beta",),
    "lora_rank": ("r", "rank", "lora_r"),
    "lora_alpha": ("lora_alpha", "alpha"),
    "lora_dropout": ("lora_dropout", "dropout"),
    "label_smoothing": ("label_smoothing", "labelSmoothing"),
}
"""Names of each field of RunValues in training_config.json, TRL's arguments, PEFT's configuration and model cards."""
_INTEGERS = {"per_device_batch_size", "gradient_accumulation_steps", "processes", "lora_rank", "lora_alpha"}
_MAY_BE_ZERO = {"max_grad_norm", "lora_dropout", "label_smoothing"}
_NESTED = 4
"""Levels of a document that are searched."""
_MAX_EPOCHS = 1e6
"""transformers writes sys.maxsize where it does not know them."""
_MAX_NAME = 64

Document = dict[str, Any]


@dataclass(frozen=True)
class RecordedSettings:
    """What the files of a run tell of its settings."""

    values: RunValues
    arguments_class: str | None = None
    """Class of its training arguments, such as ``DPOConfig``."""
    notes: tuple[str, ...] = ()
    """Files that could not be read, and why."""


def collect(
    places: Sequence[Path], state: Mapping[str, Any], logged_arguments: Callable[[], Document], peak: float | None
) -> RecordedSettings:
    """Collect settings from every file that records some; the first that has a value wins.

    Args:
        places: folders to look in.
        state: content of trainer_state.json; empty where there is none.
        logged_arguments: training arguments from the logs, for which it is asked when no file has them.
        peak: highest learning rate in the logs, which is the run's where nothing tells that of its arguments.

    """
    notes: list[str] = []
    arguments_class = None
    documents: list[Document] = []
    for place in places:
        documents.append(_json(RunFolder(place).training_config.path, notes))
        documents.append(_json(place / "training_args.json", notes))
        saved = _saved(place / "training_args.bin", notes)
        documents.append(_arguments(saved))
        arguments_class = arguments_class or _class(saved)
    if not any(documents):
        documents.append(logged_arguments())
    planned_by_steps = next((steps > 0 for steps in map(_max_steps, documents) if steps is not None), False)
    if planned_by_steps:
        documents = [{**document, **dict.fromkeys(_KEYS["epochs"])} for document in documents]
    documents += [_adapter(_json(place / "adapter_config.json", notes)) for place in places]
    documents += [_model_card(place / "README.md") for place in places]
    documents.append(_of_state(state, planned_by_steps=planned_by_steps))
    documents += [{"world_size": _saved_processes(place)} for place in places]
    documents.append({"learning_rate": peak})
    values = {field: _value(field, documents) for field in _KEYS}
    steps = [_max_steps(state), *map(_max_steps, documents)]
    total = next((steps for steps in steps if steps is not None and steps > 0), None)
    losses, weights = _loss(documents)
    return RecordedSettings(
        RunValues(**values, loss=losses, loss_weights=weights, total_steps=total),  # type: ignore[arg-type]
        arguments_class,
        tuple(notes),
    )


def _value(field: str, documents: Sequence[Document]) -> float | int | None:
    for document in documents:
        for raw in _find(document, _KEYS[field]):
            value = number(raw)
            if value is None or not (0 < value < math.inf or (value == 0 and field in _MAY_BE_ZERO)):
                continue
            if field == "epochs" and value > _MAX_EPOCHS:
                continue
            return int(value) if field in _INTEGERS else value
    return None


def _loss(documents: Sequence[Document]) -> tuple[tuple[str, ...] | None, tuple[float, ...] | None]:
    """Loss types, and the weight of each where those are given."""
    for document in documents:
        for value in _find(document, ("loss_type", "loss")):
            names = [value] if isinstance(value, str) else value
            if not isinstance(names, (list, tuple)) or not names or not all(isinstance(name, str) for name in names):
                continue
            raw = next((raw for raw in _find(document, ("loss_weights",)) if isinstance(raw, (list, tuple))), [])
            weights = [weight for weight in map(number, raw) if weight is not None]
            return tuple(names), tuple(weights) if len(weights) == len(names) else None
    return None, None


def _max_steps(document: Mapping[str, Any]) -> int | None:
    """Total of optimizer steps; of arguments: what overrides the epochs, or a number below 1."""
    steps = number(document.get("max_steps", document.get("training_steps")))
    return int(steps) if steps is not None and math.isfinite(steps) else None


def _find(document: Document, keys: Sequence[str]) -> Iterator[Any]:
    """Values of ``keys`` in nested mappings, outer ones first; each mapping once, as a pickle's may hold each other."""
    level, seen = [document], {id(document)}
    for _ in range(_NESTED):
        yield from (mapping[key] for mapping in level for key in keys if mapping.get(key) is not None)
        inner = {id(value): value for mapping in level for value in mapping.values() if isinstance(value, dict)}
        level = [value for place, value in inner.items() if place not in seen]
        seen |= inner.keys()


def _of_state(state: Mapping[str, Any], *, planned_by_steps: bool) -> Document:
    """Settings in trainer_state.json, whose ``max_steps`` is the total in any case and whose epochs are rounded up."""
    step, epoch, total = (number(state.get(key)) for key in ("global_step", "epoch", "max_steps"))
    epochs = round(epoch * total / step, 2) if planned_by_steps and step and epoch and total else None
    return {
        "train_batch_size": state.get("train_batch_size"),
        "num_train_epochs": epochs or state.get("num_train_epochs"),
    }


def _saved(path: Path, notes: list[str]) -> Opaque | None:
    """Training arguments as transformers saves them: a pickle, which is read and not loaded, as that runs code."""
    if not path.is_file():
        return None
    try:
        saved = read_saved(path)
    except (OSError, ValueError) as error:
        notes.append(f"{path.name} tells nothing: {error}.")
        return None
    return saved if isinstance(saved, Opaque) else None


def _class(saved: Opaque | None) -> str | None:
    name = saved.name[-1] if saved is not None and saved.name else ""
    return name if name.isidentifier() and len(name) <= _MAX_NAME else None


def _arguments(saved: Opaque | None) -> Document:
    arguments = attributes(saved)
    processes = attributes(arguments.get("distributed_state")).get("num_processes")
    return arguments | {"world_size": processes} if arguments else {}


def _adapter(configuration: Document) -> Document:
    return configuration if configuration.get("peft_type", "LORA") == "LORA" else {}


def _model_card(path: Path) -> Document:
    """Hyper-parameters as transformers lists them in a model card: ``- learning_rate: 5e-06``."""
    if not path.is_file():
        return {}
    text = path.read_text(encoding="utf-8", errors="replace")
    return dict(re.findall(r"^- (\w+): (\S+)$", text, flags=re.MULTILINE))


def _saved_processes(place: Path) -> int | None:
    """Every process of a run leaves its random state in a checkpoint."""
    count = sum(1 for _ in place.glob("rng_state_*.pth"))
    return count or (1 if (place / "rng_state.pth").is_file() else None)


def _json(path: Path, notes: list[str]) -> Document:
    if not path.is_file():
        return {}
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        notes.append(f"{path.name} tells nothing: {error}.")
        return {}
    return document if isinstance(document, dict) else {}
