"""Read the log history and the settings of a training run from its folder, written by DPORun, transformers or TRL."""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer.diagnosis.remedies import RunValues
from dporun_trainer.errors import RunError
from dporun_trainer.run_folder import RunFolder
from dporun_trainer.run_folder.curves import number
from dporun_trainer.run_folder.history import LogHistory

History = list[dict[str, Any]]

_KEYS: Mapping[str, tuple[str, ...]] = {
    "learning_rate": ("learning_rate", "learningRate"),
    "epochs": ("num_train_epochs", "epochs", "num_epochs"),
    "per_device_batch_size": ("per_device_train_batch_size", "perDeviceBatchSize", "train_batch_size"),
    "gradient_accumulation_steps": ("gradient_accumulation_steps", "gradientAccumulationSteps"),
    "processes": ("world_size",),
    "max_grad_norm": ("max_grad_norm", "maxGradNorm"),
    "lora_rank": ("r", "rank", "lora_r"),
    "lora_alpha": ("lora_alpha", "alpha"),
    "lora_dropout": ("lora_dropout", "dropout"),
    "label_smoothing": ("label_smoothing", "labelSmoothing"),
}
"""Names of each field of RunValues in the configurations of DPORun, TRL and PEFT and in transformers' model cards."""
_INTEGERS = {"per_device_batch_size", "gradient_accumulation_steps", "processes", "lora_rank", "lora_alpha"}


@dataclass(frozen=True)
class RecordedRun:
    """What a run's folder records."""

    history: History
    source: Path
    """File or folder from which the history was read."""
    settings: RunValues


def read_run(directory: Path) -> RecordedRun:
    """Read a run's log history and settings.

    The history is taken from the first of the run's own log history, trainer_state.json (of the run, else of its newest
    checkpoint) and TensorBoard event files; the settings from the training_config.json of DPORun, else from every file
    that records some. ``training_args.bin`` is not read: it is a pickle, and loading one can run any code.

    Raises:
        RunError: the folder contains no history, or a file is broken.

    """
    folder = RunFolder(directory)
    if not directory.is_dir():
        raise _unreadable(f"{directory} is not a folder")
    places = [directory, *reversed(folder.checkpoints.folders().values())]
    candidates: list[tuple[Path, Callable[[Path], History]]] = [
        (folder.history.path, lambda _: _from_history(folder.history)),
        *((place / "trainer_state.json", _from_trainer_state) for place in places),
        (directory, _from_events),
    ]
    for path, read in candidates:
        history = read(path) if path.exists() else []
        if history:
            ours = folder.training_config.read()
            return RecordedRun(history, path, RunValues.of(ours.requested) if ours else _settings(folder, places))
    runs = sorted(set(folder.runs_below()))
    raise _unreadable(
        f"{directory} contains no training history: no {folder.history.path.name}, no trainer_state.json (not even in "
        "a checkpoint) and no TensorBoard event files",
        hint=f"These subfolders contain runs: {', '.join(runs[:8])}." if runs else None,
    )


def _from_history(history: LogHistory) -> History:
    try:
        return history.load()
    except (OSError, ValueError) as error:
        raise _unreadable(f"cannot read {history.path}: {error}") from error


def _from_trainer_state(path: Path) -> History:
    state = _json(path)
    if not isinstance(state, dict):
        return _entries(state, path)
    history = _entries(state.get("log_history", []), path)
    # the run may be past its last log
    step, epoch = number(state.get("global_step")), number(state.get("epoch"))
    return [*history, {"step": step, "epoch": epoch}] if history and step and epoch else history


def _entries(history: object, path: Path) -> History:
    if not isinstance(history, list) or not all(isinstance(entry, dict) for entry in history):
        raise _unreadable(f"{path} does not contain a list of log entries")
    return history


def _from_events(directory: Path) -> History:
    """Read TensorBoard event files below ``directory``, one writer's folder after the other in order of time."""
    folders = {path.parent for path in directory.rglob("events.out.tfevents.*")}
    if not folders:
        return []
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # noqa: PLC0415

    attempts = []
    for folder in sorted(folders):
        events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
        events.Reload()
        entries: dict[tuple[int, str], dict[str, Any]] = {}
        began = float("inf")
        for tag in events.Tags()["scalars"]:
            side, _, name = tag.partition("/")
            if side not in {"train", "eval"}:
                continue
            key = name if side == "train" or name == "epoch" else f"eval_{name}"
            for event in events.Scalars(tag):
                began = min(began, event.wall_time)
                entries.setdefault((event.step, side), {"step": event.step})[key] = event.value
        # transformers logs the epoch of validations, too, under train/
        epochs = {step: entry["epoch"] for (step, _), entry in entries.items() if "epoch" in entry}
        history = [
            {**entries[key], **_epoch(epochs, key[0])}
            for key in sorted(entries, key=lambda key: (key[0], key[1] != "train"))
        ]
        attempts.append((began, history))
    return [entry for _, history in sorted(attempts, key=lambda attempt: attempt[0]) for entry in history]


def _epoch(epochs: Mapping[int, float], step: int) -> dict[str, float]:
    return {"epoch": epochs[step]} if step in epochs else {}


def _settings(folder: RunFolder, places: Sequence[Path]) -> RunValues:
    """Collect settings from every file that records some; the first file that has a value wins."""
    names = (folder.training_config.path.name, "training_args.json", "adapter_config.json", "trainer_state.json")
    documents = [
        document
        for place in (folder.path, folder.final, *places[1:2])
        for name in names
        if (place / name).is_file() and isinstance(document := _json(place / name), dict)
    ]
    documents += [_model_card(place / "README.md") for place in places[:2] if (place / "README.md").is_file()]
    states = [document for document in documents if "log_history" in document]
    values: dict[str, Any] = {"total_steps": next(filter(None, map(_total_steps, states)), None)}
    for field, keys in _KEYS.items():
        found = (number(value) for document in documents for value in _find(document, keys))
        value = next((value for value in found if value is not None), None)
        values[field] = int(value) if value is not None and field in _INTEGERS else value
    arguments = [document for document in documents if document not in states]
    if any((number(value) or 0) > 0 for document in arguments for value in _find(document, ("max_steps",))):
        values["epochs"] = None  # max_steps overrides it
    losses = [value for document in documents for value in _find(document, ("loss_type", "loss"))]
    loss = next((value for value in losses if isinstance(value, (str, list))), None)
    return RunValues(**values, loss=None if loss is None else (loss,) if isinstance(loss, str) else tuple(loss))


def _total_steps(state: Mapping[str, Any]) -> int | None:
    """In trainer_state.json, ``max_steps`` is the total, whether an argument or the epochs determined it."""
    steps = number(state.get("max_steps"))
    return int(steps) if steps is not None and 0 < steps < math.inf else None


def _find(document: object, keys: Sequence[str]) -> Iterator[Any]:
    """Values of ``keys`` in nested mappings, outer ones first; log histories are not searched."""
    if not isinstance(document, dict):
        return
    yield from (document[key] for key in keys if document.get(key) is not None)
    for value in document.values():
        yield from _find(value, keys)


def _model_card(path: Path) -> dict[str, str]:
    """Hyper-parameters as transformers lists them in a model card: ``- learning_rate: 5e-06``."""
    text = path.read_text(encoding="utf-8", errors="replace")
    return dict(re.findall(r"^- (\w+): (\S+)$", text, flags=re.MULTILINE))


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _unreadable(f"cannot read {path}: {error}") from error


def _unreadable(message: str, *, hint: str | None = None) -> RunError:
    return RunError(
        Reason.TRAINER_ERROR,
        message,
        hint=hint or "Give the output folder of a training run, which contains its checkpoints.",
    )
