"""Names of the files of a run, relative to its folder: on the volume, in the archive and on a user's disk.

The trainer's ``RunFolder`` is the one reader and writer of them; see there who writes what.
"""

from pathlib import PurePosixPath

INPUTS = PurePosixPath("inputs")
"""Model and data as prepare fetched them; never archived."""
INPUT_MODEL = INPUTS / "model"
INPUT_TRAIN = INPUTS / "train.jsonl"
INPUT_VALIDATION = INPUTS / "validation.jsonl"
INPUT_TOKENS = INPUTS / "tokens"
"""The pairs of both in tokens, as training reads them."""
INPUT_GENERAL = INPUTS / "general.jsonl"
INPUT_ADAPTER = INPUTS / "adapter"
"""Adapter to start from (checkpoints.resumeFrom)."""
PREPARED = INPUTS / "prepared.json"
"""Written last by prepare: what was fetched, its fingerprints and the lint report."""

CHECKPOINT_PREFIX = "checkpoint-"
COMPLETE = "COMPLETE"
"""Marker inside a checkpoint, written last; a checkpoint without it is torn and ignored."""
FINAL = PurePosixPath("final")
"""Adapter of the best checkpoint."""
MERGED = PurePosixPath("merged")
"""Base model with that adapter merged in."""
RUNS = PurePosixPath("runs")
"""TensorBoard logs."""
EVALUATION = PurePosixPath("evaluation")

TRAINING_CONFIG = PurePosixPath("training_config.json")
TRAINING_METRICS = PurePosixPath("training_metrics.json")
LOG_HISTORY = PurePosixPath("log_history.jsonl")
OLD_LOG_HISTORY = PurePosixPath("log_history.json")
"""The same as one list, as the first version wrote it; still read."""
COMPARISON_RESULTS = EVALUATION / "comparison_results.json"
EVALUATION_METRICS = EVALUATION / "evaluation_metrics.json"
FORGETTING = EVALUATION / "forgetting.json"
HEALTH = PurePosixPath("health.json")
VERDICT = PurePosixPath("verdict.json")
DATASET_REPORT = PurePosixPath("dataset_report.json")
"""What the data turned out to be, and every row that was left out."""
DATASET_HTML = PurePosixPath("dataset.html")
"""The same for people, drawn and with samples."""
REPORT_HTML = PurePosixPath("report.html")
REPORT_PNG = PurePosixPath("report.png")
MODEL_CARD = PurePosixPath("README.md")
PROGRESS = PurePosixPath("progress.json")
OUTCOME = PurePosixPath("outcome.json")
"""How training ended, evaluation included; of the first node where there are several."""
PREPARE_OUTCOME = PurePosixPath("prepare_outcome.json")
FINISH_OUTCOME = PurePosixPath("finish_outcome.json")
"""How evaluation and report ended, for the launcher."""
ARCHIVE_OUTCOME = PurePosixPath("archive_outcome.json")
MANIFEST = PurePosixPath("manifest.json")
"""Of the archive: path, bytes and SHA-256 of every file; written last."""

CHECKPOINT_INDEX = PurePosixPath("checkpoints.json")
"""In the archive until that is complete: which checkpoints are whole there, with the SHA-256 of every file."""
CHECKPOINT_UPLOAD = PurePosixPath("checkpoint_upload.json")
"""On the volume: how far the copy of the checkpoints is."""

# Only on a user's disk (``dporun run --local``).

LOCAL_CONFIG = PurePosixPath("run.json")
"""The RunConfig."""
LOCAL_LOGS = PurePosixPath("logs")
"""What each command printed."""
LOCAL_LOCK = PurePosixPath("lock")
"""Held by the one process that may use the folder."""
