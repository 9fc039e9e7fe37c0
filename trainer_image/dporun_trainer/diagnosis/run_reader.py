"""Read the log history and the settings of a training run from its folder, written by DPORun, transformers or TRL."""

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dporun_api.metrics import LEARNING_RATE, LOSS, REWARD_ACCURACY, REWARD_CHOSEN, REWARD_MARGIN, Split
from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer.diagnosis.event_logs import EventLogs
from dporun_trainer.diagnosis.recorded_settings import collect
from dporun_trainer.diagnosis.remedies import RunValues
from dporun_trainer.errors import RunError
from dporun_trainer.run_folder import RunFolder
from dporun_trainer.run_folder.curves import Curves, mean, number
from dporun_trainer.run_folder.history import LogHistory

History = list[dict[str, Any]]
_State = dict[str, Any]

_FIRST_LOGS = 5
_NEAR = 0.1
"""Share by which the first losses of a DPO run may differ from ln 2."""


@dataclass(frozen=True)
class RecordedRun:
    """What a run's folder records."""

    history: History
    source: Path
    """File or folder from which the history was read."""
    settings: RunValues
    notes: tuple[str, ...] = ()
    """What cannot be seen in it, and why."""
    objection: str | None = None
    """Why it is no DPO run, on which the rules of the diagnosis would say nothing."""


def read_run(directory: Path) -> RecordedRun:
    """Read a run's log history and settings.

    The history is taken from the first of the run's own log history, trainer_state.json (of the run, or of its newest
    checkpoint if that went further) and TensorBoard event files; the settings from the training_config.json of DPORun,
    else from every file that records some.

    Raises:
        RunError: the folder contains no history, or a file is broken.

    """
    folder = RunFolder(directory)
    if not directory.is_dir():
        raise _unreadable(f"{directory} is not a folder")
    ours = folder.training_config.read()
    places = [directory, *reversed(folder.checkpoints.folders().values())]
    events = EventLogs(directory)
    state_path, state = _furthest_state(places)
    candidates: tuple[tuple[Path, Callable[[], History]], ...] = (
        (folder.history.path, lambda: _of_history(folder.history)),
        (state_path, lambda: _of_state(state, state_path)),
        (directory, events.history),
    )
    read = ((source, history()) for source, history in candidates if source.exists())
    source, history = next(((source, history) for source, history in read if history), (directory, []))
    if not history:
        raise _nothing(folder)
    if ours:
        return RecordedRun(history, source, RunValues.of(ours.requested, takes_dropout=not ours.lora.target_parameters))
    history, sets = _one_validation_set(history)
    curves = Curves.of(history)
    rates = [rate for rate in curves.get(LEARNING_RATE, Split.TRAINING).finite().values if rate > 0]
    found = collect([directory, folder.final, *places[1:2]], state, events.arguments, max(rates, default=None))
    remark, objection = _kind(curves, found.arguments_class)
    notes = tuple(note for note in (remark, sets, *found.notes) if note)
    return RecordedRun(history, source, found.values, notes, objection)


def _of_history(history: LogHistory) -> History:
    try:
        return history.load()
    except (OSError, ValueError) as error:
        raise _unreadable(f"cannot read {history.path}: {error}") from error


def _furthest_state(places: Sequence[Path]) -> tuple[Path, _State]:
    """trainer_state.json of the run, or of its newest checkpoint with a whole one where that went further."""
    found: list[tuple[Path, _State]] = []
    broken: RunError | None = None
    for path in (place / "trainer_state.json" for place in places):
        if not path.is_file():
            continue
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            broken = broken or _unreadable(f"cannot read {path}: {error}")
            continue
        found.append((path, document if isinstance(document, dict) else {"log_history": document}))
        if path.parent != places[0]:
            break
    if broken and not found:
        raise broken
    return max(found, key=lambda each: _position(each[1])[0], default=(places[0] / "trainer_state.json", {}))


def _position(state: _State) -> tuple[float, float | None]:
    step, epoch = number(state.get("global_step")), number(state.get("epoch"))
    return (step if step is not None and math.isfinite(step) else 0.0), epoch


def _of_state(state: _State, path: Path) -> History:
    history = state.get("log_history", [])
    if not isinstance(history, list) or not all(isinstance(entry, dict) for entry in history):
        raise _unreadable(f"{path} does not contain a list of log entries")
    step, epoch = _position(state)
    # the run may be past its last log
    return [*history, {"step": step, "epoch": epoch}] if history and step and epoch is not None else history


def _one_validation_set(history: History) -> tuple[History, str | None]:
    """Take the first of several validation sets, whose metrics have its name: ``eval_NAME_loss``."""
    keys = list(dict.fromkeys(key for entry in history for key in entry))
    sets = [match[1] for key in keys if (match := re.fullmatch(r"eval_(.+)_loss", key))]
    if not sets or LOSS.log_key(Split.VALIDATION) in keys:
        return history, None
    prefix = f"eval_{sets[0]}_"
    renamed = [
        {key.replace(prefix, "eval_", 1) if key.startswith(prefix) else key: value for key, value in entry.items()}
        for entry in history
    ]
    return renamed, f"Of the validation sets {', '.join(sets)} this looks at {sets[0]} alone."


def _kind(curves: Curves, arguments_class: str | None) -> tuple[str | None, str | None]:
    """Tell what cannot be seen without rewards, or why this is not taken for a DPO run at all."""
    if any(curves.get(metric, split) for metric in (REWARD_MARGIN, REWARD_CHOSEN, REWARD_ACCURACY) for split in Split):
        return None, None
    unseen = "so whether chosen responses are above rejected ones cannot be seen."
    if arguments_class is not None and "DPO" in arguments_class:
        return f"No rewards were logged, {unseen}", None
    first = curves.get(LOSS, Split.TRAINING).finite().values[:_FIRST_LOGS]
    if arguments_class is None and first and abs(mean(first) / math.log(2) - 1) < _NEAR:
        return f"No rewards were logged, {unseen} The losses begin near ln 2 as those of DPO do.", None
    kind = (
        ""
        if arguments_class is None
        else f", and its training arguments are those of another trainer ({arguments_class})"
    )
    return None, (
        f"Not taken for a DPO run: its log has no rewards (rewards/chosen, rewards/margins){kind}. The signs of health "
        "are those of preference training and say nothing about other losses."
    )


def _nothing(folder: RunFolder) -> RunError:
    directory = folder.path
    states = {path.relative_to(directory).parts[0] for path in directory.glob("*/trainer_state.json")}
    states |= {path.relative_to(directory).parts[0] for path in directory.glob("*/checkpoint-*/trainer_state.json")}
    runs = sorted({*folder.runs_below(), *states})
    return _unreadable(
        f"{directory} contains no training history: no {folder.history.path.name}, no trainer_state.json (not even in "
        "a checkpoint) and no TensorBoard event files",
        hint=f"These subfolders contain runs: {', '.join(runs[:8])}." if runs else None,
    )


def _unreadable(message: str, *, hint: str | None = None) -> RunError:
    return RunError(
        Reason.TRAINER_ERROR,
        message,
        hint=hint or "Give the output folder of a training run, which contains its checkpoints.",
    )
