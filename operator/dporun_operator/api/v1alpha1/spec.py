"""DPORunSpec: what the user asks for.

Hyper-parameter sections come from the trainer's contract; this module adds what only a cluster has: secrets, volumes,
placement, life cycle. Field docstrings become ``kubectl explain``. ``cel`` rules stand beside what they check.
"""

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StringConstraints

from dporun_trainer.contract import config
from dporun_trainer.contract.base import Document

HUB = r"hf://[\w.-]+(/[\w.-]+)?"
S3 = r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"
CLAIM = r"pvc://[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?"

MODEL_URI = rf"^({HUB}|{S3}/\S+|{CLAIM}/\S+)$"
DATA_URI = rf"^({HUB}(\?[\w=&.,:/-]+)?|{S3}/\S+|{CLAIM}/\S+)$"
FILE_URI = rf"^({S3}/\S+|{CLAIM}/\S+)$"
FOLDER_URI = rf"^{S3}(/\S*)?$"

Name = Annotated[str, StringConstraints(min_length=1, max_length=253, pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$")]
"""Name of a Kubernetes object."""

LabelText = Annotated[str, StringConstraints(max_length=317)]
Quantity = Annotated[str, StringConstraints(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$", max_length=32)]
"""Kubernetes quantity; write numbers in quotes or with a unit."""


def cel(*rules: tuple[str, str]) -> dict[str, Any]:
    """Validation rules for the API server: pairs of CEL expression and message."""
    return {"x-kubernetes-validations": [{"rule": rule, "message": message} for rule, message in rules]}


def no_parent_folder(field: str) -> tuple[str, str]:
    """A rule that refuses ``..`` in a path."""
    return (
        f"!self.{field}.contains('/../') && !self.{field}.endsWith('/..')",
        f"{field} must not contain '..'",
    )


class SecretReference(Document):
    """A Secret in the run's own namespace; mounted by the kubelet, never read by the operator."""

    name: Name
    """Name of the Secret."""


class Model(config.Model):
    """The base model."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            no_parent_folder("uri"),
            ("!has(self.revision) || self.uri.startsWith('hf://')", "revision is for hf:// models only"),
        )
    )

    uri: config.Uri = Field(pattern=MODEL_URI, examples=["hf://Qwen/Qwen2.5-0.5B-Instruct"])
    """hf://OWNER/NAME, s3://BUCKET/PREFIX or pvc://CLAIM/PATH of a transformers model in safetensors."""
    secret_ref: SecretReference | None = None
    """Secret with HF_TOKEN (hf://) or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (s3://; also AWS_ENDPOINT_URL)."""


class Dataset(config.Dataset):
    """Preference pairs: prompt, chosen and rejected, as text or as chat messages."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            no_parent_folder("train"),
            (
                "!has(self.validation) || !has(self.validationFraction)",
                "give validation or validationFraction, not both",
            ),
            (
                "!has(self.validation) || self.validation != self.train",
                "validation must not be the training data; leave it out to have a part of train held out",
            ),
        )
    )

    train: config.Uri = Field(pattern=DATA_URI, examples=["s3://bucket/dpo_train.jsonl"])
    """hf://OWNER/NAME?split=train, s3://BUCKET/FILE or pvc://CLAIM/FILE; JSONL or Parquet."""
    validation: config.Uri | None = Field(None, pattern=DATA_URI, examples=["s3://bucket/dpo_val.jsonl"])
    """Held-out pairs, from the same kinds of place. Split off from train when absent."""
    secret_ref: SecretReference | None = None
    """Secret with HF_TOKEN (hf://) or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (s3://; also AWS_ENDPOINT_URL)."""


class Dpo(config.Dpo):
    """The DPO objective, in the words of TRL's DPOConfig."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "!has(self.lossWeights) || size(self.lossWeights) == size(self.loss)",
                "lossWeights must have one weight per entry of loss",
            ),
        )
    )


class Distributed(Document):
    """How many processes train together, and DeepSpeed."""

    nodes: int = Field(1, ge=1, le=64, examples=[2])
    """Pods; more than 1 needs a ReadWriteMany volume."""
    processes_per_node: int | None = Field(None, ge=1, le=64, examples=[8])
    """Training processes per pod. One per GPU when absent, and one where gpusPerNode is 0."""
    deepspeed: config.DeepSpeed = config.DeepSpeed()
    """DeepSpeed ZeRO."""


class Toleration(Document):
    """A taint that the pods tolerate."""

    key: str | None = Field(None, max_length=317)
    """Taint key; all taints when absent and operator is Exists."""
    operator: Literal["Equal", "Exists"] = "Equal"
    """How the key relates to the value."""
    value: str | None = Field(None, max_length=63)
    """Taint value."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Taint effect; all effects when absent."""
    toleration_seconds: int | None = Field(None, ge=0)
    """Seconds for which a NoExecute taint is tolerated. For ever when absent."""


class Resources(Document):
    """What the training pods get, and where they run."""

    gpu_resource_name: str = Field(
        "nvidia.com/gpu", max_length=253, pattern=r"^[a-z0-9.-]+/[\w.-]+$", examples=["amd.com/gpu"]
    )
    """Extended resource that stands for one GPU."""
    gpus_per_node: int = Field(1, ge=0, le=64, examples=[8])
    """GPUs per pod; 0 trains on CPU."""
    requests: dict[LabelText, Quantity] | None = Field(None, max_length=16, examples=[{"cpu": "8", "memory": "64Gi"}])
    """Requests of the training container, GPUs apart. The operator's defaults when absent."""
    limits: dict[LabelText, Quantity] | None = Field(None, max_length=16, examples=[{"memory": "64Gi"}])
    """Limits of the training container, GPUs apart. The operator's defaults when absent."""
    node_selector: dict[LabelText, Annotated[str, StringConstraints(max_length=63)]] | None = Field(
        None, max_length=32, examples=[{"gpu": "h100"}]
    )
    """Labels of the nodes to run on; every pod of the run has them, so that its volume binds where the GPUs are."""
    tolerations: tuple[Toleration, ...] | None = Field(None, max_length=16)
    """Taints that every pod of the run tolerates."""
    runtime_class_name: Name | None = Field(None, examples=["nvidia"])
    """RuntimeClass of the pods."""
    priority_class_name: Name | None = Field(None, examples=["training-low"])
    """PriorityClass of the training pods."""
    shm_size: Quantity = Field("2Gi", examples=["16Gi"])
    """Size of /dev/shm, which NCCL uses between the processes of a pod."""


class Scheduling(Document):
    """Queueing."""

    queue_name: Name | None = Field(None, examples=["team-a"])
    """Kueue LocalQueue; training waits there for its quota."""


class Storage(Document):
    """The volume of the run's results."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "!has(self.claimName) || !has(self.storageClassName)",
                "storageClassName is for a new volume; with claimName, leave it out",
            ),
        )
    )

    claim_name: Name | None = Field(None, examples=["shared-results"])
    """Existing PersistentVolumeClaim to use. One is made for the run when absent."""
    size: Quantity = Field("50Gi", examples=["200Gi"])
    """Size of the volume that is made."""
    storage_class_name: Name | None = Field(None, examples=["fast-ssd"])
    """Its StorageClass. The cluster's default when absent."""
    access_modes: tuple[Literal["ReadWriteOnce", "ReadWriteMany", "ReadWriteOncePod"], ...] = Field(
        ("ReadWriteOnce",), min_length=1, max_length=3, examples=[["ReadWriteMany"]]
    )
    """Its access modes."""
    when_deleted: Literal["Delete", "Retain"] = "Delete"
    """What becomes of the volume that was made, once the deleted run has been archived."""


class ResumeFrom(Document):
    """Another run to start from."""

    model_config = ConfigDict(
        json_schema_extra=cel(("has(self.run) != has(self.uri)", "give exactly one of run and uri"))
    )

    run: Name | None = Field(None, examples=["support-tone-v1"])
    """Archived DPORun in this namespace."""
    uri: config.Uri | None = Field(None, pattern=FOLDER_URI, examples=["s3://bucket/dporuns/support-tone-v1-1a2b3c4d"])
    """Folder of an archived run."""


class Checkpoints(Document):
    """Checkpoints of the run."""

    resume: config.ResumePolicy = config.ResumePolicy.AUTO
    """auto: an attempt goes on from the newest complete checkpoint; never: it starts again."""
    every_steps: int | None = Field(None, ge=1, le=1000000, examples=[500])
    """Save (and validate) every so many optimizer steps as well as after each epoch."""
    resume_from: ResumeFrom | None = None
    """Start from the best adapter of another run."""


class GeneralQuestions(config.GeneralQuestions):
    """The check for catastrophic forgetting on general questions."""

    uri: config.Uri | None = Field(None, pattern=FILE_URI, examples=["s3://bucket/general.jsonl"])
    """JSONL with question, answer and optionally accept, match and category. A built-in set of 60 when absent."""


class Evaluation(config.Evaluation):
    """What happens after training, before the GPU is given back."""

    general: GeneralQuestions = GeneralQuestions()
    """The check for catastrophic forgetting."""


class Archive(config.ArchiveTarget):
    """Where results are archived, and which."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "!has(self.secretRef) || !has(self.serviceAccountName)",
                "give secretRef or serviceAccountName, not both",
            ),
        )
    )

    uri: config.Uri = Field(pattern=FOLDER_URI, examples=["s3://bucket/dporuns"])
    """S3 folder; the run's own folder is made below it."""
    secret_ref: SecretReference | None = None
    """Secret with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."""
    service_account_name: Name | None = Field(None, examples=["dporun-archiver"])
    """ServiceAccount with a cloud identity (such as IRSA) that may write to the bucket."""


class TensorBoard(Document):
    """TensorBoard beside the training, and after it."""

    enabled: bool = True
    """Run TensorBoard with a Service."""
    ttl_seconds_after_finished: int = Field(86400, ge=0, le=31536000, examples=[3600])
    """Seconds for which TensorBoard stays after the run has finished."""


class RunPolicy(Document):
    """Retries and limits."""

    max_retries: int = Field(3, ge=0, le=100, examples=[0])
    """Attempts after a failure that may pass; preemptions do not count."""
    active_deadline_seconds: int | None = Field(None, ge=60, le=31536000, examples=[86400])
    """Longest time to train, waiting for a GPU not counted. No limit when absent."""
    stall_seconds: int = Field(1800, ge=60, le=86400, examples=[600])
    """Seconds without progress after which an attempt counts as stalled and is restarted."""
    ttl_seconds_after_finished: int | None = Field(None, ge=0, le=31536000, examples=[604800])
    """Delete the DPORun (as kubectl delete would) so long after it finished. Never when absent."""
    grace_period_seconds: int = Field(120, ge=30, le=3600, examples=[300])
    """Seconds that a pod has to save a checkpoint when it is stopped."""


class DeletionPolicy(StrEnum):
    """What deleting the DPORun does with its results."""

    ARCHIVE = "Archive"
    RETAIN = "Retain"
    DELETE = "Delete"


MUTABLE: dict[str, set[str] | None] = {
    "suspend": None,
    "deletionPolicy": None,
    "tensorboard": None,
    "runPolicy": {"ttlSecondsAfterFinished"},
    "archive": {"secretRef"},
}
"""Fields of the spec that may change: wholly (None), or only the named parts."""


def _frozen() -> list[str]:
    """CEL paths of every field that is immutable."""
    paths = [field for field in _wire_names(DPORunSpec) if field not in MUTABLE]
    for section, model in (("runPolicy", RunPolicy), ("archive", Archive)):
        parts = MUTABLE[section] or set()
        paths += [f"{section}.?{part}" for part in _wire_names(model) if part not in parts]
    return paths


def _wire_names(model: type[Document]) -> list[str]:
    return [str(field.alias) for field in model.model_fields.values()]


def _rules(schema: dict[str, Any]) -> None:
    schema.update(
        cel(
            (
                "self.distributed.nodes == 1 || has(self.storage.claimName) || "
                "'ReadWriteMany' in self.storage.accessModes",
                "distributed.nodes above 1 needs storage that all nodes can mount: "
                "set storage.accessModes to [ReadWriteMany], or storage.claimName",
            ),
            (
                "self.resources.gpusPerNode == 0 || !has(self.distributed.processesPerNode) || "
                "self.distributed.processesPerNode == self.resources.gpusPerNode",
                "distributed.processesPerNode must equal resources.gpusPerNode: one process drives one GPU "
                "(leave processesPerNode out)",
            ),
        )
    )
    schema["x-kubernetes-validations"] += [
        {
            "rule": f"self.?{path} == oldSelf.?{path}",
            "message": f"{path.replace('?', '')} is immutable; create a new DPORun to change it",
        }
        for path in _frozen()
    ]


class DPORunSpec(Document):
    """A DPO fine-tuning run."""

    model_config = ConfigDict(json_schema_extra=_rules)

    model: Model
    """The base model."""
    dataset: Dataset
    """Preference pairs."""
    dpo: Dpo = Dpo()
    """The DPO objective."""
    lora: config.Lora = config.Lora()
    """The LoRA adapter."""
    training: config.Training = config.Training()
    """Optimisation."""
    distributed: Distributed = Distributed()
    """How many processes train together, and DeepSpeed."""
    resources: Resources = Resources()
    """What the training pods get, and where they run."""
    scheduling: Scheduling = Scheduling()
    """Queueing."""
    image: str | None = Field(
        None, max_length=512, pattern=r"^[\w][\w./:@-]*$", examples=["registry.example.com/dporun/trainer:0.1.0"]
    )
    """Trainer image. The operator's default when absent; another must match the administrator's allow-list."""
    storage: Storage = Storage()
    """The volume of the run's results."""
    checkpoints: Checkpoints = Checkpoints()
    """Checkpoints of the run."""
    evaluation: Evaluation = Evaluation()
    """What happens after training, before the GPU is given back."""
    tensorboard: TensorBoard = TensorBoard()
    """TensorBoard beside the training, and after it."""
    archive: Archive | None = None
    """Where results are archived. Nowhere when absent: they stay on the volume."""
    run_policy: RunPolicy = RunPolicy()
    """Retries and limits."""
    deletion_policy: DeletionPolicy = DeletionPolicy.ARCHIVE
    """Archive: a deleted run is archived first; Retain: its volume stays; Delete: its results go with it."""
    suspend: bool = False
    """Stop the run after saving a checkpoint; false again goes on from there."""
