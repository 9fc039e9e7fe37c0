"""TensorBoard event files of transformers: the log history and the training arguments in them."""

import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


class EventLogs:
    """The event files below a directory, one folder per attempt."""

    def __init__(self, directory: Path):
        self._directory = directory

    def history(self) -> list[dict[str, Any]]:
        """Log entries as transformers keeps them, one attempt after the other in order of time."""
        attempts = []
        for events in self._attempts:
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

    def arguments(self) -> dict[str, Any]:
        """Training arguments, which transformers logs as a text when training begins; of the newest attempt."""
        newest: tuple[float, dict[str, Any]] = (0.0, {})
        for events in self._attempts:
            if "args/text_summary" not in events.Tags()["tensors"]:
                continue
            for event in events.Tensors("args/text_summary"):
                try:
                    document = json.loads(b"".join(event.tensor_proto.string_val))
                except (ValueError, RecursionError):
                    continue
                if isinstance(document, dict) and event.wall_time >= newest[0]:
                    newest = event.wall_time, document
        return newest[1]

    @cached_property
    def _attempts(self) -> "list[EventAccumulator]":
        folders = sorted({path.parent for path in self._directory.rglob("events.out.tfevents.*")})
        if not folders:
            return []
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # noqa: PLC0415

        attempts = [EventAccumulator(str(folder), size_guidance={"scalars": 0}) for folder in folders]
        for events in attempts:
            events.Reload()
        return attempts


def _epoch(epochs: Mapping[int, float], step: int) -> dict[str, float]:
    return {"epoch": epochs[step]} if step in epochs else {}
