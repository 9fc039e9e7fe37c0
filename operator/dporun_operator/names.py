"""Names that more than one module needs: labels, field manager, and the names of a run's children."""

import hashlib
from enum import StrEnum
from typing import Final

from dporun_api.v1alpha1 import GROUP

OPERATOR: Final = "dporun-operator"
"""Field manager of everything the operator applies, and reporting component of its Events."""
FINALIZER: Final = f"{GROUP}/archive"
"""Keeps a deleted run until its results are safe."""
RESULTS_FINALIZER: Final = f"{GROUP}/results"
"""Keeps a run's claim, whoever deletes it, until the operator has cleaned up."""
KEPT: Final = f"{GROUP}/kept"
"""Annotation of a claim that outlives its run: why."""
FORCE_RELEASE: Final = f"{GROUP}/force-release"
"""Annotation of a run with its own UID: let it go, whatever becomes of its results."""
RETRY: Final = f"{GROUP}/retry"
"""Annotation of a run that asks, with the value ``archive``, for another try; taken off once the status shows it."""

RUN_UID: Final = f"{GROUP}/run-uid"
"""Label of every child: UID of its run. The watches select by it."""
RUN_NAME: Final = f"{GROUP}/run"
"""Label of every child: name of its run. Annotation of a PersistentVolume that was kept: NAMESPACE/NAME of the run."""
ATTEMPT: Final = f"{GROUP}/attempt"
FOLDER: Final = f"{GROUP}/folder"
"""Annotation of a PersistentVolume that was kept: the run's folder on it."""
BEST_CHECKPOINT: Final = f"{GROUP}/best-checkpoint"
"""Annotation of a PersistentVolume that was kept: the best checkpoint in that folder, if one is known."""
COMPONENT: Final = "app.kubernetes.io/component"
SERVES_TENSORBOARD: Final = f"{GROUP}/serves-tensorboard"
"""Label of the pods behind the Service of TensorBoard."""
COMPLETION_INDEX: Final = "batch.kubernetes.io/job-completion-index"
KUEUE_QUEUE: Final = "kueue.x-k8s.io/queue-name"
KUEUE_JOB_UID: Final = "kueue.x-k8s.io/job-uid"
"""Label of the Workload that Kueue makes for a Job."""

MAIN_CONTAINER: Final = "trainer"
TENSORBOARD_CONTAINER: Final = "tensorboard"

MAX_CHILD_NAME: Final = 56
"""A pod of an Indexed Job has the host name ``<job>-<index>``, a DNS label of at most 63 characters."""


class Component(StrEnum):
    """What a child does for its run; the value of its component label."""

    PREPARE = "prepare"
    TRAIN = "train"
    ARCHIVE = "archive"
    TENSORBOARD = "tensorboard"
    STORAGE = "storage"
    CONFIG = "config"


def child(run: str, suffix: str) -> str:
    """Name a child of ``run``: a DNS label that starts with a letter, the same for the same arguments.

    A run may have a name of 253 characters, with dots or a leading digit; such a name is shortened and made unique
    by a hash.
    """
    label = run.replace(".", "-")
    if label[0].isdigit():
        label = f"run-{label}"
    name = f"{label}-{suffix}"
    if label == run and len(name) <= MAX_CHILD_NAME:
        return name
    digest = hashlib.sha256(run.encode()).hexdigest()[:8]
    kept = label[: MAX_CHILD_NAME - len(suffix) - len(digest) - 2].rstrip("-")
    return f"{kept}-{digest}-{suffix}"


def train_job(run: str, attempt: int) -> str:
    """Job of one training attempt."""
    return child(run, f"train-{attempt}")


def archive_job(run: str, attempt: int) -> str:
    """Job of one attempt to archive."""
    return child(run, f"archive-{attempt}")


def prepare_job(run: str, attempt: int) -> str:
    """Job that fetches and checks model and data; it is seldom repeated, so the first has no number."""
    return child(run, "prepare" if attempt == 1 else f"prepare-{attempt}")


def train_service(run: str) -> str:
    """Headless Service through which the training pods find each other."""
    return child(run, "train")


def config_map(run: str) -> str:
    """ConfigMap that holds the RunConfig."""
    return child(run, "config")


def tensorboard(run: str) -> str:
    """Service of TensorBoard, and the Deployment behind it after the end of training."""
    return child(run, "tensorboard")


def results_claim(run: str, uid: str) -> str:
    """PersistentVolumeClaim of the results; one that was retained never meets a new run of the same name."""
    return child(run, f"results-{uid[:8]}")


def label_value(run: str) -> str:
    """``run`` as the value of a label: at most 63 characters."""
    return run if len(run) <= 63 else child(run, "run")
