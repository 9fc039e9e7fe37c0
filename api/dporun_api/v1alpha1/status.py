"""DPORunStatus: where a run stands. Written by the operator alone."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BeforeValidator, ConfigDict, Field, StringConstraints

from dporun_api import results
from dporun_api.document import Document, inherited
from dporun_api.memory import MemoryEstimate
from dporun_api.v1alpha1.reasons import Phase

Time = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
"""RFC 3339, UTC."""

ShortText = Annotated[str, StringConstraints(max_length=64)]


class ConditionType(StrEnum):
    """What can be waited for with ``kubectl wait --for=condition=...``."""

    ACCEPTED = "Accepted"
    PREPARED = "Prepared"
    FITS = "Fits"
    SCHEDULED = "Scheduled"
    RUNNING = "Running"
    TENSORBOARD_READY = "TensorBoardReady"
    EVALUATED = "Evaluated"
    HEALTHY = "Healthy"
    ARCHIVED = "Archived"
    PROGRESS_STALLED = "ProgressStalled"
    SUSPENDED = "Suspended"
    SUCCEEDED = "Succeeded"
    FINISHED = "Finished"


class Condition(Document):
    """One aspect of the run's state, as in the Kubernetes API conventions."""

    type: ConditionType
    """Aspect."""
    status: Literal["True", "False", "Unknown"]
    """Whether it holds."""
    reason: Annotated[str, StringConstraints(pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$", max_length=1024)]
    """One word for programs."""
    message: Annotated[str, StringConstraints(max_length=32768)] = ""
    """One sentence for people."""
    last_transition_time: Time
    """When status last changed."""
    observed_generation: int = Field(ge=0)
    """metadata.generation that this was derived from."""


def _known_conditions(conditions: object) -> object:
    """Leave out what only another version of the operator knows, rather than to find the whole status unreadable."""
    if not isinstance(conditions, list):
        return conditions
    return [condition for condition in conditions if condition.get("type") in set(ConditionType)]


def _known_phase(phase: object) -> object:
    """A phase follows from the conditions, so that of another version need not be known."""
    return phase if phase in set(Phase) else None


class ProgressStatus(results.Position):
    """How far training is."""

    updated_at: Time | None = None
    """When the training pod reported this."""


class TensorBoardStatus(Document):
    """Where to find TensorBoard."""

    service: str | None = Field(None, max_length=63)
    """Service in the run's namespace."""
    port: int | None = None
    """Port of the Service."""
    command: str | None = Field(None, max_length=512)
    """Command that makes it reachable at http://localhost:6006."""


class ArchiveState(StrEnum):
    """State of the archive."""

    PENDING = "Pending"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    SKIPPED = "Skipped"


class ArchiveStatus(Document):
    """What has been archived."""

    state: ArchiveState
    """State of the archive: Pending, Running, Succeeded, Failed or Skipped."""
    uri: str | None = inherited(results.ArchiveResult, "uri", default=None, max_length=1280)
    manifest_sha256: str | None = inherited(results.ArchiveResult, "manifest_sha256", default=None, max_length=64)
    files: int | None = inherited(results.ArchiveResult, "files", default=None, ge=0)
    bytes: int | None = inherited(results.ArchiveResult, "bytes", default=None, ge=0)
    start_time: Time | None = None
    """When archiving began."""
    verified_time: Time | None = None
    """When every file of the archive was last compared with its manifest."""
    attempts: int = Field(0, ge=0)
    """Times that archiving was tried."""
    job_uid: str | None = Field(None, max_length=64)
    """UID of the Job that archives; no other Job is believed."""
    secret_name: str | None = Field(None, max_length=253)
    """Secret that this Job was given; empty where the run names none."""
    message: str | None = Field(None, max_length=1024)
    """What went wrong, or why nothing was archived."""


class Summary(Document):
    """Formatted values for the columns of ``kubectl get``."""

    progress: ShortText | None = None
    """Optimizer steps done, of all, such as 340/1200."""
    eta: ShortText | None = None
    """Time left, such as 41m."""
    eval_loss: ShortText | None = None
    """Validation loss."""
    accuracy: ShortText | None = None
    """Share of validation pairs ranked correctly."""
    margin: ShortText | None = None
    """Mean reward margin on the validation data."""
    best: ShortText | None = None
    """Checkpoint with the lowest validation loss."""
    model: Annotated[str, StringConstraints(max_length=1024)] | None = None
    """Base model, shortened."""
    gpus: ShortText | None = None
    """GPUs in all."""
    forgetting: ShortText | None = None
    """Share of general knowledge lost."""


class DPORunStatus(Document):
    """Where a run stands."""

    # The one document that is changed in place: the steps of a run's life assign its fields, one after the other.
    model_config = ConfigDict(extra="ignore", frozen=False, validate_assignment=True)

    observed_generation: int | None = None
    """metadata.generation that this status was derived from."""
    phase: Annotated[Phase | None, BeforeValidator(_known_phase)] = None
    """Where the run stands, in one word."""
    message: str | None = Field(None, max_length=2048)
    """Where the run stands and what to do next, in one sentence."""
    conditions: Annotated[tuple[Condition, ...], BeforeValidator(_known_conditions)] = Field(
        (), max_length=32, json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}
    )
    """Aspects of the run's state."""
    start_time: Time | None = None
    """When the first Job of the run was created."""
    training_completion_time: Time | None = None
    """When training, evaluation included, was done; absent until then, and after a failure."""
    completion_time: Time | None = None
    """When the run finished."""
    attempt: int | None = Field(None, ge=0)
    """Number of the current training attempt, from 1."""
    attempt_start_time: Time | None = None
    """When the pods of the current attempt began to run."""
    active_seconds: int | None = Field(None, ge=0)
    """Seconds for which training pods ran, in attempts that have ended; runPolicy.activeDeadlineSeconds counts them."""
    retries: int | None = Field(None, ge=0)
    """Preparations and attempts that failed and were repeated; runPolicy.maxRetries limits them."""
    preemptions: int | None = Field(None, ge=0)
    """Preparations and attempts that were preempted."""
    progress: ProgressStatus | None = None
    """How far training is."""
    metrics: results.Metrics | None = None
    """The newest training metrics."""
    best_checkpoint: results.BestCheckpoint | None = None
    """The checkpoint with the lowest validation loss."""
    checkpoint_upload: results.CheckpointUpload | None = None
    """The copy of the checkpoints in the archive while training goes on."""
    resumed_from: str | None = Field(None, max_length=512)
    """Checkpoint from which the current attempt went on."""
    dataset: results.DatasetSummary | None = None
    """Size of the data, and what looks wrong with it."""
    memory: MemoryEstimate | None = None
    """Memory that training needs, as preparation estimates it."""
    health: results.Health | None = None
    """Diagnosis of the run's curves."""
    evaluation: results.EvaluationSummary | None = None
    """Results on the validation data."""
    verdict: results.Verdict | None = None
    """Judgement of the result."""
    tensorboard: TensorBoardStatus | None = None
    """Where to find TensorBoard."""
    archive: ArchiveStatus | None = None
    """What has been archived."""
    failure: results.Failure | None = None
    """Why and where the run failed."""
    summary: Summary | None = None
    """Formatted values for the columns of kubectl get."""
