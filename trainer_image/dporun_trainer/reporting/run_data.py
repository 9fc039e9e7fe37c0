"""Everything that the files of a run's directory tell, for the report and the model card.

Any file may be absent (evaluation disabled, a run that failed early) or broken; what is left is still reported.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from pydantic import ValidationError

from dporun_api import run_folder as layout
from dporun_api.document import Document
from dporun_api.metrics import LOSS, Split
from dporun_api.results import BestCheckpoint, Health, Outcome, Progress, Verdict
from dporun_api.run_config import RunConfig
from dporun_trainer.run_folder.curves import Curves
from dporun_trainer.run_folder.prepared import Prepared

_Document = TypeVar("_Document", bound=Document)

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Record:
    """A run, as its files tell it; what is not there is None or empty."""

    directory: str
    """Name of the run's directory."""
    config: RunConfig | None = None
    training_config: Json = field(default_factory=dict)
    training_metrics: Json = field(default_factory=dict)
    curves: Curves = field(default_factory=Curves)
    progress: Progress = field(default_factory=Progress)
    prepared: Prepared | None = None
    health: Health | None = None
    verdict: Verdict | None = None
    outcome: Outcome | None = None
    metrics: Json = field(default_factory=dict)
    """evaluation_metrics.json."""
    comparison: Json = field(default_factory=dict)
    """comparison_results.json."""
    forgetting: Json = field(default_factory=dict)
    """forgetting.json."""
    problems: tuple[str, ...] = ()
    """Files that are there and cannot be read."""

    @property
    def name(self) -> str:
        """Name of the run."""
        return self.config.run.name if self.config else self.directory

    @cached_property
    def best(self) -> BestCheckpoint | None:
        """The checkpoint with the lowest validation loss: as training recorded it, else as the curve shows it."""
        if self.progress.best_checkpoint is not None:
            return self.progress.best_checkpoint
        lowest = self.curves.get(LOSS, Split.VALIDATION).finite().between(0, 2**63).best()
        if lowest is None:
            return None
        step, loss = lowest
        return BestCheckpoint(step=step, epoch=self.curves.epochs.get(step), eval_loss=loss)

    @cached_property
    def regressions_first(self) -> Sequence[Json]:
        """Compared examples: those where the base model was better first, by reward margin within each group."""
        order = {"base": 0, "tie": 1, "tuned": 2}
        compared = [example for example in self.comparison.get("examples", ()) if example.get("better") in order]
        return sorted(compared, key=lambda e: (order[e["better"]], e.get("rewards", {}).get("margin", 0.0)))


def read_record(directory: Path) -> Record:
    """Read what there is.

    Raises:
        FileNotFoundError: the directory itself is not there.

    """
    if not directory.is_dir():
        raise FileNotFoundError(f"{directory} is not a folder")
    reader = _Reader(directory)
    training_config = reader.mapping(layout.TRAINING_CONFIG)
    outcome = reader.document(layout.OUTCOME, Outcome) or reader.document(layout.PREPARE_OUTCOME, Outcome)
    return Record(
        directory=directory.resolve().name,
        config=_run_config(training_config),
        training_config=training_config,
        training_metrics=reader.mapping(layout.TRAINING_METRICS),
        curves=Curves.of(reader.entries(layout.LOG_HISTORY)),
        progress=reader.document(layout.PROGRESS, Progress) or Progress(),
        prepared=reader.document(layout.PREPARED, Prepared),
        health=reader.document(layout.HEALTH, Health) or (outcome.health if outcome else None),
        verdict=reader.document(layout.VERDICT, Verdict),
        outcome=outcome,
        metrics=reader.mapping(layout.EVALUATION_METRICS),
        comparison=reader.mapping(layout.COMPARISON_RESULTS),
        forgetting=reader.mapping(layout.FORGETTING),
        problems=tuple(reader.problems),
    )


def _run_config(training_config: Json) -> RunConfig | None:
    """Find the RunConfig that training_config.json records."""
    for candidate in training_config.values():
        if isinstance(candidate, dict) and {"run", "model", "dataset"} <= candidate.keys():
            try:
                return RunConfig.model_validate(candidate)
            except ValidationError:
                return None
    return None


class _Reader:
    """Reads files of one directory and remembers which it could not read."""

    def __init__(self, directory: Path):
        self._directory = directory
        self.problems: list[str] = []

    def document(self, path: PurePosixPath, kind: type[_Document]) -> _Document | None:
        content: _Document | None = self._read(path, kind.model_validate_json)
        return content

    def mapping(self, path: PurePosixPath) -> Json:
        content = self._read(path, json.loads)
        return content if isinstance(content, dict) else {}

    def entries(self, path: PurePosixPath) -> list[Json]:
        content = self._read(path, json.loads)
        return [entry for entry in content if isinstance(entry, dict)] if isinstance(content, list) else []

    def _read(self, path: PurePosixPath, parse: Callable[[str], Any]) -> Any:
        try:
            return parse((self._directory / path).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:  # ValidationError is a ValueError
            self.problems.append(f"{path} cannot be read: {str(error).splitlines()[0]}")
            return None
