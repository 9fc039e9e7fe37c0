"""Real runs as they are recorded in recorded/: a file per run with its log, its true course and its recipe."""

import dataclasses
import functools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dporun_testing.labelled.criteria import Course, Events, Visible, label
from dporun_testing.labelled.run import LabelledRun
from dporun_trainer.diagnosis.remedies import RunValues
from dporun_trainer.run_folder.curves import number

RECORDED = Path(__file__).parent / "recorded"
KEPT = ("loss", "grad_norm", "learning_rate", "rewards/", "logps/")
"""Keys of the log that are recorded, besides step and epoch; eval_ in front as well."""


@functools.cache
def recorded_runs() -> tuple[LabelledRun, ...]:
    """All real runs that are recorded."""
    return tuple(read(path) for path in sorted(RECORDED.glob("*.json")))


def read(path: Path) -> LabelledRun:
    """Read one run."""
    kept = json.loads(path.read_text(encoding="utf-8"))
    course, seen, validated = (_course_of(kept[key]) for key in ("course", "seen", "validated"))
    history = [*_entries(kept["train"]), *_entries(kept["validation"])]
    history.sort(key=lambda entry: (entry["step"], "eval_loss" in entry))
    return LabelledRun(
        name=path.stem,
        kind=path.stem.rpartition("-")[0],
        history=history,
        label=label(course, seen, validated, Events(**kept["events"]), Visible(**kept["visible"])),
        max_steps=kept["visible"]["steps"],
        epochs=math.ceil(kept["recipe"]["epochs"]),
        batch=kept["recipe"]["batch"],
        settings=_settings(kept["settings"]) if "settings" in kept else None,
    )


def course(path: Path) -> Course:
    """The true course of a recorded run."""
    return _course_of(json.loads(path.read_text(encoding="utf-8"))["course"])


def _course_of(kept: Mapping[str, Any]) -> Course:
    return Course(tuple(kept["validation"]), tuple(kept["training"]), kept["accuracy"], kept["margin"])


def _settings(kept: Mapping[str, Any]) -> RunValues:
    return RunValues(**{key: tuple(value) if isinstance(value, list) else value for key, value in kept.items()})


def _entries(columns: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    for row in zip(*columns.values(), strict=True):
        yield {
            key: value if key == "step" else number(value)
            for key, value in zip(columns, row, strict=True)
            if value is not None
        }


def record(
    name: str,
    recipe: Any,
    history: Sequence[Mapping[str, Any]],
    points: Mapping[int, Mapping[str, Any]],
    settings: RunValues | None = None,
) -> None:
    """Write a run.

    Args:
        name: of the run.
        recipe: how it was made, a dataclass.
        history: its log.
        points: its true course by step: measurements (loss, accuracy, margin) of each side.
        settings: of a run of the product.

    """
    training = [entry for entry in history if "loss" in entry]
    validation = [entry for entry in history if "eval_loss" in entry]
    moments = sorted({0, *(entry["step"] for entry in validation)})
    last = max(points)
    known: dict[str, Any] = {
        "recipe": {
            field.name: value
            for field in dataclasses.fields(recipe)
            if (value := getattr(recipe, field.name)) != field.default or field.name in {"epochs", "batch"}
        },
        "course": _course(points, sorted(points), "population"),
        "seen": _course(points, sorted(points), "own"),
        "validated": _course(points, moments, "own"),
        "events": {"weights_lost": not math.isfinite(points[last]["training"]["loss"]), "isolated": 0},
        "visible": {
            "logs": len(training),
            "validations": len(moments) - 1,
            "epochs": training[-1]["epoch"],
            "steps": last,
        },
        "train": _columns(training),
        "validation": _columns(validation),
    }
    if settings is not None:
        known["settings"] = dataclasses.asdict(settings)
    RECORDED.mkdir(exist_ok=True)
    lines = ",\n".join(f'"{key}": {json.dumps(value, separators=(",", ":"))}' for key, value in known.items())
    (RECORDED / f"{name}.json").write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")


def _course(points: Mapping[int, Mapping[str, Any]], steps: Sequence[int], side: str) -> dict[str, Any]:
    finite = [step for step in steps if math.isfinite(points[step]["training"]["loss"])]
    return {
        "validation": [_short(points[step][side]["loss"]) for step in finite],
        "training": [_short(points[step]["training"]["loss"]) for step in finite],
        "accuracy": _short(points[finite[-1]][side]["accuracy"]),
        "margin": _short(points[finite[-1]][side]["margin"]),
    }


def _columns(entries: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    keys = {
        key: None
        for entry in entries
        for key in entry
        if key in {"step", "epoch"} or key.removeprefix("eval_").startswith(KEPT)
    }
    return {key: [_short(entry.get(key)) for entry in entries] for key in keys}


def _short(value: Any) -> Any:
    """Few digits; what is not finite as a word, as JSON has none for it."""
    if not isinstance(value, float):
        return value
    return float(f"{value:.5g}") if math.isfinite(value) else str(value)
