"""How to start a pod of the trainer image, and how to ask it: argv, environment, ports, paths, user, exit codes.

The operator writes this into Jobs, ``dporun run --local`` into processes of this computer; the trainer reads it.
"""

from collections.abc import Sequence
from enum import IntEnum, StrEnum
from pathlib import PurePath, PurePosixPath
from typing import Final

PROGRAM: Final = "dporun-trainer"
"""The image's command line."""
MODULE: Final = "dporun_trainer"
"""The same, for ``python -m``."""


class Command(StrEnum):
    """What a pod of a run does."""

    PREPARE = "prepare"
    TRAIN = "train"
    ARCHIVE = "archive"


def arguments(
    command: Command,
    *,
    config: PurePath | None = None,
    root: PurePath | None = None,
    port: int | None = None,
    prune_only: bool = False,
    manifest_sha256: str | None = None,
) -> list[str]:
    """Arguments of PROGRAM; inside a pod of the operator none but the command is needed.

    Args:
        command: what to do.
        config: file with the RunConfig; CONFIG_PATH when absent.
        root: folder of all runs; RESULTS_MOUNT when absent.
        port: of the status server of ``train``, 0 for none; STATUS_PORT when absent.
        prune_only: makes ``archive`` delete intermediate checkpoints and upload nothing.
        manifest_sha256: of the manifest that a run was archived with; makes ``archive`` verify that archive.

    """
    options = {"--config": config, "--root": root, "--port": port, "--manifest-sha256": manifest_sha256}
    words = [word for flag, value in options.items() if value is not None for word in (flag, str(value))]
    return [command.value, *words, *(["--prune-only"] if prune_only else [])]


def tensorboard_command(logs: PurePath) -> Sequence[str]:
    """Command of the TensorBoard container, which serves ``logs`` at TENSORBOARD_PORT."""
    return ["tensorboard", f"--logdir={logs}", "--bind_all", f"--port={TENSORBOARD_PORT}", "--reload_multifile=true"]


class ExitCode(IntEnum):
    """Exit codes of the trainer's commands; the Job's podFailurePolicy follows them."""

    OK = 0
    ERROR = 1
    CONFIG_INVALID = 64
    DATA_INVALID = 65
    GPU_OUT_OF_MEMORY = 66
    NON_FINITE = 67
    ARCHIVE_FAILED = 74
    PREEMPTED = 75


# Environment.


class SecretPrefix(StrEnum):
    """Prefix of the variables of each Secret of a run, so that the same key of two Secrets does not clash."""

    MODEL = "MODEL_"
    DATASET = "DATASET_"
    ARCHIVE = "ARCHIVE_"


MAIN_ADDRESS_VARIABLE: Final = "DPORUN_MAIN_ADDRESS"
"""Host name of the first pod, where there are several."""
NODE_INDEX_VARIABLE: Final = "JOB_COMPLETION_INDEX"
"""Index of this pod among those of the run; Kubernetes sets it for the pods of an Indexed Job."""
NODE_NAME_VARIABLE: Final = "DPORUN_NODE_NAME"
"""Name of the cluster's node that this pod runs on."""
UPLOADED_STEP_VARIABLE: Final = "DPORUN_UPLOADED_STEP"
"""Step of the newest checkpoint known to be in the archive; an attempt never starts behind it."""
TERMINATION_LOG_VARIABLE: Final = "DPORUN_TERMINATION_LOG"
"""Path of the termination message where it is not TERMINATION_LOG."""
CPU_REQUEST_VARIABLE: Final = "DPORUN_CPU_REQUEST"
"""CPUs that the run asked for, rounded up; where there is no limit, as many threads compute."""
PRETENDED_GPUS_VARIABLE: Final = "DPORUN_PRETENDED_GPUS"
"""``true`` on a cluster whose GPUs exist for the scheduler alone: training on the CPU is then what is meant."""
LOG_LEVEL_VARIABLE: Final = "DPORUN_LOG_LEVEL"
"""DEBUG, INFO, WARNING or ERROR."""

# Ports, and what is served there.

STATUS_PORT: Final = 8080
"""Where the first pod answers the paths below over HTTP."""
PROGRESS_PATH: Final = "/progress"
"""Progress, as JSON."""
METRICS_PATH: Final = "/metrics"
"""Progress, for Prometheus."""
RENDEZVOUS_PORT: Final = 29500
"""Where the training processes meet."""
TENSORBOARD_PORT: Final = 6006

# Paths inside the pod.

RESULTS_MOUNT: Final = PurePosixPath("/results")
"""The volume that holds the runs' folders."""
CLAIMS_MOUNT: Final = PurePosixPath("/claims")
"""pvc://CLAIM/PATH is mounted read-only at /claims/CLAIM, so its file is /claims/CLAIM/PATH."""
CONFIG_PATH: Final = PurePosixPath("/etc/dporun/run.json")
"""The RunConfig."""
TERMINATION_LOG: Final = PurePosixPath("/dev/termination-log")
"""The Outcome, for the operator."""
TERMINATION_LOG_BYTES: Final = 4096
"""The kubelet cuts what is longer."""

USER_ID: Final = 10001
"""User and group of the image; the volume's files belong to the group. The Dockerfiles and the chart say it too."""
