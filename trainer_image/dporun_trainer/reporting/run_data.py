"""The data of a run, collected from its files, for the report and the model card.

Any file may be absent (evaluation disabled, a run that failed early) or broken; what is left is still reported.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from pydantic import ValidationError

from dporun_api.metrics import LOSS, Split
from dporun_api.results import BestCheckpoint, Health, Outcome, Progress, Verdict
from dporun_api.run_config import RunConfig
from dporun_trainer.run_folder import RunFolder
from dporun_trainer.run_folder.curves import Curves
from dporun_trainer.run_folder.files import Content, JsonFile
from dporun_trainer.run_folder.prepared import Prepared
from dporun_trainer.run_folder.records import (
    ComparedExample,
    ComparisonRecord,
    EvaluationRecord,
    ForgettingRecord,
    MergeRecord,
    TrainingMetrics,
    TrainingRecord,
)


@dataclass(frozen=True)
class RunData:
    """The data of a run; what a run has no file for is None or empty."""

    directory: str
    """Name of the run's directory."""
    training: TrainingRecord | None = None
    training_metrics: TrainingMetrics | None = None
    curves: Curves = field(default_factory=Curves)
    progress: Progress = field(default_factory=Progress)
    prepared: Prepared | None = None
    health: Health | None = None
    verdict: Verdict | None = None
    outcome: Outcome | None = None
    metrics: EvaluationRecord | None = None
    comparison: ComparisonRecord | None = None
    forgetting: ForgettingRecord | None = None
    merge: MergeRecord | None = None
    dataset_page: str | None = None
    """Name of the page about the data, beside the report."""
    problems: tuple[str, ...] = ()
    """Files that are there and cannot be read."""

    @property
    def config(self) -> RunConfig | None:
        """What the user asked."""
        return self.training.requested if self.training else None

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

    @property
    def best_step(self) -> int | None:
        """Step of that checkpoint; None where no validation loss is a number, so that none is better than another."""
        return self.best.step if self.best and self.best.eval_loss is not None else None

    @property
    def quantization(self) -> str:
        """In how many bits the base was while the adapter was trained and evaluated; empty where it was as stored."""
        chosen = self.config.model.quantization if self.config else None
        return f"4 bits ({chosen})" if chosen else ""

    @cached_property
    def regressions_first(self) -> Sequence[ComparedExample]:
        """Compared examples: those where the base model was better first, by reward margin within each group."""
        order = {"base": 0, "tie": 1, "tuned": 2}
        examples = self.comparison.examples if self.comparison else ()
        compared = [example for example in examples if example.better in order]
        return sorted(compared, key=lambda example: (order[example.better or ""], example.rewards.margin))


def read_run_data(folder: RunFolder) -> RunData:
    """Read what there is.

    Raises:
        FileNotFoundError: the directory itself is not there.

    """
    if not folder.path.is_dir():
        raise FileNotFoundError(f"{folder.path} is not a folder")
    reader = _Reader(folder)
    outcome = reader.read(folder.outcome) or reader.read(folder.prepare_outcome)
    return RunData(
        directory=folder.path.resolve().name,
        training=reader.read(folder.training_config),
        training_metrics=reader.read(folder.training_metrics),
        curves=reader.curves(),
        progress=folder.progress.read(),
        prepared=reader.read(folder.prepared),
        health=reader.read(folder.health) or (outcome.health if outcome else None),
        verdict=reader.read(folder.verdict),
        outcome=outcome,
        metrics=reader.read(folder.evaluation.metrics),
        comparison=reader.read(folder.evaluation.comparison),
        forgetting=reader.read(folder.evaluation.forgetting),
        merge=reader.read(folder.merge_record),
        dataset_page=folder.dataset_html.name if folder.dataset_html.is_file() else None,
        problems=tuple(reader.problems),
    )


class _Reader:
    """Reads files of one run and remembers which it could not read."""

    def __init__(self, folder: RunFolder):
        self._folder = folder
        self.problems: list[str] = []

    def read(self, file: JsonFile[Content]) -> Content | None:
        try:
            return file.load()
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            self._remember(file.path, error)
            return None

    def curves(self) -> Curves:
        history = self._folder.history
        try:
            return Curves.of(history.load())
        except FileNotFoundError:
            return Curves()
        except (OSError, ValueError) as error:
            self._remember(history.path, error)
            return Curves()

    def _remember(self, path: Path, error: Exception) -> None:
        self.problems.append(f"{path.relative_to(self._folder.path)} cannot be read: {str(error).splitlines()[0]}")
