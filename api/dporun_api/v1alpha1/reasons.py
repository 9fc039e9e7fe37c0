"""The one-word reasons of conditions, Events and failures, and what follows from each.

One row of ``Reason`` is all there is to know about a reason. A failure reason also needs the place that raises it.
Reasons are for people and tools; the operator remembers nothing in them.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, WithJsonSchema

from dporun_api.pod import ExitCode


class Phase(StrEnum):
    """Where a run stands, in one word, derived from its conditions."""

    PENDING = "Pending"
    PREPARING = "Preparing"
    QUEUED = "Queued"
    TRAINING = "Training"
    EVALUATING = "Evaluating"
    ARCHIVING = "Archiving"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    SUSPENDED = "Suspended"
    DELETING = "Deleting"


@dataclass(frozen=True, kw_only=True)
class Traits:
    """What follows from a reason."""

    event: Literal["Normal", "Warning"] | None = "Normal"
    """Type of the Event that reports it; None where nothing has happened yet, or another Event says more soon."""
    phase: Phase | None = None
    """Phase of a run while one of its conditions has this reason."""
    failure: bool = False
    """Whether a run can fail for it."""
    retried: bool = False
    """Whether the same may succeed when tried again."""
    exit_code: ExitCode = ExitCode.ERROR
    """With which the trainer ends for it."""
    hint: str | None = None
    """What to do about it, where that does not depend on the run."""


def _failure(hint: str | None = None, *, exit_code: ExitCode = ExitCode.ERROR, retried: bool = False) -> Traits:
    return Traits(event="Warning", failure=True, exit_code=exit_code, retried=retried, hint=hint)


_NOTHING_YET = Traits(event=None)
_NO_EVENT = Traits(event=None)
_WARNING = Traits(event="Warning")


class Reason(StrEnum):
    """One word that says why a condition is as it is, or why a run failed."""

    _value_: str
    traits: Traits

    def __new__(cls, word: str, traits: Traits = Traits()) -> Self:
        """Make a member that is its word, with the traits beside it."""
        member = str.__new__(cls, word)
        member._value_ = word
        member.traits = traits
        return member

    # Nothing has happened yet.
    PENDING = "Pending", _NOTHING_YET
    NOT_NEEDED = "NotNeeded", _NOTHING_YET
    IN_PROGRESS = "InProgress", _NOTHING_YET
    UNKNOWN = "Unknown", _NOTHING_YET

    # A run on its way.
    ACCEPTED = "Accepted", _NO_EVENT
    WAITING_FOR_SOURCE = "WaitingForSource"
    PREPARING = "Preparing", Traits(event=None, phase=Phase.PREPARING)
    VOLUME_REPLACED = "VolumeReplaced", Traits(event="Warning", phase=Phase.PREPARING)
    PREPARED = "Prepared"
    SUFFICIENT_MEMORY = "SufficientMemory", _NO_EVENT
    INSUFFICIENT_MEMORY = "InsufficientMemory", _WARNING
    GPU_MEMORY_UNKNOWN = "GPUMemoryUnknown", _NO_EVENT
    QUEUED = "Queued", Traits(phase=Phase.QUEUED)
    SCHEDULED = "Scheduled", _NO_EVENT
    TRAINING = "Training", Traits(phase=Phase.TRAINING)
    ENDING = "Ending", Traits(event=None, phase=Phase.TRAINING)
    EVALUATING = "Evaluating", Traits(event=None, phase=Phase.EVALUATING)
    EVALUATED = "Evaluated"
    COMPLETED = "Completed", _NO_EVENT
    ARCHIVING = "Archiving", Traits(event=None, phase=Phase.ARCHIVING)
    ARCHIVED = "Archived"
    SKIPPED = "Skipped"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    TENSORBOARD_READY = "TensorBoardReady", _NO_EVENT
    STOPPED = "Stopped", _NO_EVENT
    SUSPENDING = "Suspending"
    SUSPENDED = "Suspended"
    RESUMED = "Resumed"
    DELETING = "Deleting"
    VOLUME_KEPT = "VolumeKept", _WARNING
    VOLUME_RETAINED = "VolumeRetained", _WARNING
    CLAIM_ORPHANED = "ClaimOrphaned", _WARNING
    ARCHIVE_MENDED = "ArchiveMended", _WARNING

    # Trouble that may pass by itself.
    REFUSED = "Refused", _WARNING
    CONTAINER_CONFIG = "ContainerConfig", _WARNING
    RETRYING = "Retrying", _WARNING
    UNREACHABLE = "Unreachable", _WARNING
    ARCHIVE_RETRYING = "ArchiveRetrying", Traits(event="Warning", phase=Phase.ARCHIVING)

    # The health of a run's curves (``results.HealthState``).
    ON_TRACK = "OnTrack", _NO_EVENT
    OVERFITTING = "Overfitting", _WARNING
    UNDERFITTING = "Underfitting", _WARNING
    UNSTABLE = "Unstable", _WARNING
    CONFUSED = "Confused", _WARNING

    # Failures.
    INVALID_SPEC = "InvalidSpec", _failure(exit_code=ExitCode.CONFIG_INVALID)
    DATASET_INVALID = "DatasetInvalid", _failure(exit_code=ExitCode.DATA_INVALID)
    MODEL_INVALID = "ModelInvalid", _failure(exit_code=ExitCode.DATA_INVALID)
    UNSCHEDULABLE = (
        "Unschedulable",
        Traits(
            event="Warning",
            phase=Phase.QUEUED,
            failure=True,
            hint="Ask for less in spec.resources, add a node, or set a larger runPolicy.pendingDeadlineSeconds.",
        ),
    )
    IMAGE_PULL = "ImagePull", _failure("Check that the image exists and that the nodes may pull it (imagePullSecrets).")
    GPU_OUT_OF_MEMORY = "GPUOutOfMemory", _failure(exit_code=ExitCode.GPU_OUT_OF_MEMORY)
    GPU_FAULT = (
        "GPUFault",
        _failure("Look at the GPUs of the node with nvidia-smi; cordon it when it happens again.", retried=True),
    )
    HOST_OUT_OF_MEMORY = "HostOutOfMemory", _failure("Set a larger memory limit in spec.resources.limits.")
    PREEMPTED = "Preempted", _failure(exit_code=ExitCode.PREEMPTED)
    NODE_LOST = (
        "NodeLost",
        _failure("Look at the node; the run goes on from its newest complete checkpoint.", retried=True),
    )
    NON_FINITE_LOSS = (
        "NonFiniteLoss",
        _failure("Lower training.learningRate, or set training.precision: bf16.", exit_code=ExitCode.NON_FINITE),
    )
    NOT_PREPARED = "NotPrepared", _failure("Model and data are fetched again.", retried=True)
    RENDEZVOUS = "Rendezvous", _failure(retried=True)
    STALLED = (
        "Stalled",
        _failure(
            "Look at the log of the pod; set a larger runPolicy.stallSeconds if steps are that slow.", retried=True
        ),
    )
    DEADLINE_EXCEEDED = (
        "DeadlineExceeded",
        _failure("Set a larger runPolicy.activeDeadlineSeconds; the checkpoints are kept."),
    )
    DISK_FULL = "DiskFull", _failure("Set a larger spec.storage.size.")
    VOLUME_LOST = "VolumeLost", _failure("Nothing of the run is left on a volume; start it again.")
    ARCHIVE_FAILED = (
        "ArchiveFailed",
        _failure(
            "Check archive.uri, archive.endpoint and the Secret of archive.secretRef.",
            exit_code=ExitCode.ARCHIVE_FAILED,
        ),
    )
    ARCHIVE_IMPOSSIBLE = (
        "ArchiveImpossible",
        _failure("Trying again does not help: move what is in the way.", exit_code=ExitCode.ARCHIVE_FAILED),
    )
    TRAINER_ERROR = "TrainerError", _failure("Read failure.logTail, or the whole log with kubectl logs.", retried=True)

    @classmethod
    def of_exit_code(cls, code: int) -> "Reason":
        """Why a container that said nothing ended with ``code``: the first failure of the table that has it."""
        found = (reason for reason in cls if reason.traits.failure and reason.traits.exit_code == code)
        return cls.TRAINER_ERROR if code == ExitCode.ERROR else next(found, cls.TRAINER_ERROR)


def traits_of(word: str) -> Traits:
    """Traits of a reason that was read; another version of the operator may have written one unknown here."""
    return Reason(word).traits if word in _WORDS else Traits()


_WORDS = frozenset(reason.value for reason in Reason)

FAILURES = tuple(reason for reason in Reason if reason.traits.failure)
"""Every reason for which a run can fail."""


def _is_failure(reason: Reason) -> Reason:
    if not reason.traits.failure:
        raise ValueError(f"no run fails because of {reason}")
    return reason


def _or_trainer_error(word: object) -> object:
    """A newer trainer, or an operator that was newer, may know more reasons; the message says what there is to say."""
    return Reason.TRAINER_ERROR if isinstance(word, str) and word not in _WORDS else word


FailureReason = Annotated[
    Reason,
    BeforeValidator(_or_trainer_error),
    AfterValidator(_is_failure),
    WithJsonSchema({"type": "string", "enum": [reason.value for reason in FAILURES]}),
]
"""A reason for which a run can fail."""
