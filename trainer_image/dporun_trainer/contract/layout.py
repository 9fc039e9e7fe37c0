"""Names of files and ports that more than one part relies on; paths are relative to the run's directory."""

from pathlib import PurePosixPath

INPUTS = PurePosixPath("inputs")
"""Model and data as prepare fetched them; never archived."""
INPUT_MODEL = INPUTS / "model"
INPUT_TRAIN = INPUTS / "train.jsonl"
INPUT_VALIDATION = INPUTS / "validation.jsonl"
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
LOG_HISTORY = PurePosixPath("log_history.json")
COMPARISON_RESULTS = EVALUATION / "comparison_results.json"
EVALUATION_METRICS = EVALUATION / "evaluation_metrics.json"
FORGETTING = EVALUATION / "forgetting.json"
HEALTH = PurePosixPath("health.json")
VERDICT = PurePosixPath("verdict.json")
REPORT_HTML = PurePosixPath("report.html")
REPORT_PNG = PurePosixPath("report.png")
MODEL_CARD = PurePosixPath("README.md")
PROGRESS = PurePosixPath("progress.json")
OUTCOME = PurePosixPath("outcome.json")
MANIFEST = PurePosixPath("manifest.json")
"""Of the archive: path, bytes and SHA-256 of every file; written last."""

STATUS_PORT = 8080
"""Where rank 0's pod serves /progress, /metrics and /healthz."""
RENDEZVOUS_PORT = 29500
TENSORBOARD_PORT = 6006

RESULTS_MOUNT = PurePosixPath("/results")
"""Where pods mount the volume that holds the runs' directories."""
CLAIMS_MOUNT = PurePosixPath("/claims")
"""pvc://CLAIM/PATH is mounted read-only at /claims/CLAIM, so its file is /claims/CLAIM/PATH."""
CONFIG_PATH = PurePosixPath("/etc/dporun/run.json")
TERMINATION_LOG = PurePosixPath("/dev/termination-log")
TERMINATION_LOG_BYTES = 4096
