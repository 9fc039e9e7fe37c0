"""``RunFolder``: names, reading and writing of everything in a run's directory; see the package for who does which."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from dporun_api import run_folder as names
from dporun_api.dataset_report import DatasetReport
from dporun_api.results import CheckpointUpload, Health, Outcome, Verdict
from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer.errors import RunError
from dporun_trainer.progress import ProgressFile
from dporun_trainer.run_folder.checkpoints import Checkpoints
from dporun_trainer.run_folder.files import JsonFile
from dporun_trainer.run_folder.history import LogHistory
from dporun_trainer.run_folder.manifest import Manifest
from dporun_trainer.run_folder.parts import ADAPTER_WEIGHTS, MERGE_RECORD
from dporun_trainer.run_folder.prepared import Prepared
from dporun_trainer.run_folder.records import (
    ComparisonRecord,
    EvaluationRecord,
    ForgettingRecord,
    MergeRecord,
    TrainingMetrics,
    TrainingRecord,
)

log = logging.getLogger(__name__)


class EvaluationFolder:
    """The files of an evaluation: ``evaluation/`` of a run, or the output of the command ``evaluate``."""

    def __init__(self, path: Path):
        self.path = path
        self.metrics = JsonFile(path / names.EVALUATION_METRICS.name, EvaluationRecord, exclude_unset=True)
        self.comparison = JsonFile(path / names.COMPARISON_RESULTS.name, ComparisonRecord, exclude_unset=True)
        self.forgetting = JsonFile(path / names.FORGETTING.name, ForgettingRecord, exclude_unset=True)


class RunFolder:
    """The directory of one run.

    Attributes:
        path: the directory; every other attribute is a file or folder in it, whether it exists or not.

    """

    def __init__(self, path: Path):
        self.path = path

        self.inputs = path / names.INPUTS
        self.input_model = path / names.INPUT_MODEL
        self.input_adapter = path / names.INPUT_ADAPTER
        self.input_train = path / names.INPUT_TRAIN
        self.input_validation = path / names.INPUT_VALIDATION
        self.train_tokens = path / names.INPUT_TOKENS / "train.arrow"
        self.validation_tokens = path / names.INPUT_TOKENS / "validation.arrow"
        self.input_general = path / names.INPUT_GENERAL
        self.raw_inputs = self.inputs / "raw"
        """Data as it was fetched; deleted when prepare ends."""
        self.inputs_key = self.inputs / "key"
        """What the inputs were fetched for: Prepared.key of the attempt that began to fetch."""
        self.prepared = JsonFile(path / names.PREPARED, Prepared, exclude_none=True)

        self.checkpoints = Checkpoints(path)
        self.training_config = JsonFile(path / names.TRAINING_CONFIG, TrainingRecord)
        self.history = LogHistory(path)
        self.tensorboard = path / names.RUNS
        self.final = path / names.FINAL
        self.training_metrics = JsonFile(path / names.TRAINING_METRICS, TrainingMetrics, exclude_unset=True)

        self.evaluation = EvaluationFolder(path / names.EVALUATION)
        self.merged = path / names.MERGED
        self.merge_record = JsonFile(self.merged / MERGE_RECORD, MergeRecord)
        self.health = JsonFile(path / names.HEALTH, Health)
        self.verdict = JsonFile(path / names.VERDICT, Verdict)
        self.dataset_report = JsonFile(path / names.DATASET_REPORT, DatasetReport, exclude_none=True)
        self.dataset_html = path / names.DATASET_HTML
        self.report_html = path / names.REPORT_HTML
        self.report_png = path / names.REPORT_PNG
        self.model_card = path / names.MODEL_CARD

        self.checkpoint_upload = JsonFile(path / names.CHECKPOINT_UPLOAD, CheckpointUpload, exclude_none=True)
        self.progress = ProgressFile(path / names.PROGRESS)
        self.prepare_outcome = self._outcome(names.PREPARE_OUTCOME.name)
        self.outcome = self._outcome(names.OUTCOME.name)
        self.finish_outcome = self._outcome(names.FINISH_OUTCOME.name)
        self.archive_outcome = self._outcome(names.ARCHIVE_OUTCOME.name)
        self.manifest = JsonFile(path / names.MANIFEST, Manifest, exclude_none=True)

    @classmethod
    def around(cls, part: Path) -> "RunFolder":
        """Folder of the run that ``part`` (its final/, merged/ or a checkpoint) would be of."""
        return cls(part.resolve().parent)

    def node_outcome(self, node: str) -> JsonFile[Outcome]:
        """How training ended on a node: that of node 0 is the run's."""
        return self.outcome if node == "0" else self._outcome(f"{names.OUTCOME.stem}-{node}{names.OUTCOME.suffix}")

    def load_prepared(self) -> Prepared:
        """Read what prepare left.

        Raises:
            RunError: prepare has not finished here, or the file is of another version.

        """
        path = self.prepared.path
        try:
            return self.prepared.load()
        except FileNotFoundError as error:
            raise RunError(
                Reason.NOT_PREPARED,
                f"{path} is missing: prepare has not finished for this run, or its volume is another one",
                hint="Run `dporun-trainer prepare` with the same --config and --root first.",
            ) from error
        except ValidationError as error:
            raise RunError(
                Reason.NOT_PREPARED,
                f"{path} cannot be read: {error}",
                hint="It was written by another version of dporun-trainer; delete it and run prepare again.",
            ) from error

    @property
    def is_trained(self) -> bool:
        """Whether an earlier attempt has finished training."""
        return self.training_metrics.path.is_file() and self.final.is_dir()

    @property
    def has_adapter(self) -> bool:
        """Whether there is a trained adapter."""
        return (self.final / ADAPTER_WEIGHTS).is_file()

    def runs_below(self) -> Iterator[str]:
        """Names of the folders in this one that are runs: what a person meant who named their parent."""
        for name in (names.LOG_HISTORY, names.OLD_LOG_HISTORY):
            yield from (path.parent.name for path in self.path.glob(f"*/{name}"))

    def files(self) -> Iterator[str]:
        """Paths of the run's own files, relative to its directory.

        Inputs, checkpoints that are not complete, and symbolic links are left out.
        """
        complete = {checkpoint.path.name for checkpoint in self.checkpoints.complete()}
        for folder, folders, files in os.walk(self.path):
            below = Path(folder).relative_to(self.path)
            if below == Path():
                folders[:] = [name for name in folders if name != str(names.INPUTS)]
            for name in [*files, *folders]:
                path = below / name
                if path.parts[0].startswith(names.CHECKPOINT_PREFIX) and path.parts[0] not in complete:
                    continue
                if (self.path / path).is_symlink():
                    log.warning("%s is a symbolic link and is left out", self.path / path)
                elif (self.path / path).is_file():
                    yield path.as_posix()

    def _outcome(self, name: str) -> JsonFile[Outcome]:
        return JsonFile(self.path / name, Outcome, exclude_none=True)
