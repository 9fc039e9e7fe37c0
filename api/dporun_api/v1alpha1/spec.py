"""DPORunSpec: what the user asks for.

Sections that the trainer gets come from ``run_config``; this module adds what only a cluster has: secrets, volumes,
placement, life cycle. Field docstrings become ``kubectl explain``. Rules stand beside what they check.
"""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from dporun_api import run_config
from dporun_api.document import Document, inherited
from dporun_api.v1alpha1.formats import (
    DATA_URI,
    FILE_URI,
    FOLDER_URI,
    IMAGE,
    MODEL_URI,
    RESOURCE_NAME,
    LabelText,
    Name,
    Quantity,
    names_begin_with,
    no_parent_folder,
)
from dporun_api.v1alpha1.immutable import Immutable
from dporun_api.v1alpha1.rules import Rule, Ruled


class SecretReference(Document):
    """A Secret in the run's own namespace; mounted by the kubelet, never read by the operator."""

    name: Name
    """Name of the Secret."""


class Model(run_config.Model, Ruled):
    """The base model, from a place that a cluster can reach, with its Secret."""

    rules = (
        no_parent_folder("uri"),
        Rule(
            "!has(self.revision) || self.uri.startsWith('hf://')",
            lambda model: model.revision is None or model.uri.startswith("hf://"),
            "revision is for hf:// models only",
        ),
    )

    uri: run_config.Uri = inherited(run_config.Model, "uri", pattern=MODEL_URI)
    secret_ref: SecretReference | None = None
    """Secret with HF_TOKEN (hf://) or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (s3://; also AWS_ENDPOINT_URL)."""


class Dataset(run_config.Dataset, Ruled):
    """Preference pairs, from places that a cluster can reach, with their Secret."""

    rules = (
        no_parent_folder("train"),
        no_parent_folder("validation"),
        Rule(
            "!has(self.validation) || !has(self.validationFraction)",
            lambda dataset: dataset.validation is None or dataset.validation_fraction is None,
            "give validation or validationFraction, not both",
        ),
        Rule(
            "!has(self.validation) || self.validation != self.train",
            lambda dataset: dataset.validation != dataset.train,
            "validation must not be the training data; leave it out to have a part of train held out",
        ),
        Rule(
            "!has(self.validation) || !has(self.groupBy)",
            lambda dataset: dataset.validation is None or dataset.group_by is None,
            "groupBy says what is held out of train; leave it out where validation is given",
        ),
    )

    train: run_config.Uri = inherited(run_config.Dataset, "train", pattern=DATA_URI)
    validation: run_config.Uri | None = inherited(run_config.Dataset, "validation", pattern=DATA_URI)
    secret_ref: SecretReference | None = None
    """Secret with HF_TOKEN (hf://) or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (s3://; also AWS_ENDPOINT_URL)."""


class Dpo(run_config.Dpo, Ruled):
    """The DPO objective, with the rule that its weights fit its losses."""

    rules = (
        Rule(
            "!has(self.lossWeights) || size(self.lossWeights) == size(self.loss)",
            lambda dpo: dpo.loss_weights is None or len(dpo.loss_weights) == len(dpo.loss),
            "lossWeights must have one weight per entry of loss",
        ),
    )


class Distributed(Ruled):
    """How many processes train together, and DeepSpeed."""

    rules = (names_begin_with("environment", run_config.ENVIRONMENT_PREFIXES),)

    nodes: int = Field(1, ge=1, le=64, examples=[2])
    """Pods; more than 1 needs a ReadWriteMany volume."""
    processes_per_node: int | None = Field(None, ge=1, le=64, examples=[8])
    """Training processes per pod. One per GPU when absent, and one where gpusPerNode is 0."""
    environment: run_config.Variables | None = Field(None, max_length=32, examples=[{"NCCL_SOCKET_IFNAME": "eth0"}])
    """Variables of the training processes; names begin with NCCL_, TORCH_NCCL_, UCX_, FI_ or PYTORCH_."""
    deepspeed: run_config.DeepSpeed = run_config.DeepSpeed()
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
    """Seconds for which a NoExecute taint is tolerated. Forever when absent."""


class Resources(Document):
    """What the training pods get, and where they run."""

    gpu_resource_name: str = Field("nvidia.com/gpu", max_length=253, pattern=RESOURCE_NAME, examples=["amd.com/gpu"])
    """Extended resource that stands for one GPU."""
    gpus_per_node: int = Field(1, ge=0, le=64, examples=[8])
    """GPUs per pod; 0 trains on CPU."""
    gpu_memory: Quantity | None = Field(None, examples=["80Gi"])
    """Memory of one GPU. With it, the condition Fits tells, and what can never fit is refused before a GPU is held."""
    requests: dict[LabelText, Quantity] | None = Field(None, max_length=16, examples=[{"cpu": "8", "memory": "64Gi"}])
    """Requests of the training container, GPUs apart. The operator's defaults when absent; memory follows the model."""
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


class Storage(Ruled):
    """The volume of the run's results."""

    rules = (
        Rule(
            "!has(self.claimName) || !has(self.storageClassName)",
            lambda storage: storage.claim_name is None or storage.storage_class_name is None,
            "storageClassName is for a new volume; with claimName, leave it out",
        ),
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


class ResumeFrom(Ruled):
    """Another run to start from."""

    rules = (
        Rule(
            "has(self.run) != has(self.uri)",
            lambda source: (source.run is None) != (source.uri is None),
            "give exactly one of run and uri",
        ),
    )

    run: Name | None = Field(None, examples=["support-tone-v1"])
    """Archived DPORun in this namespace."""
    uri: run_config.Uri | None = Field(
        None, pattern=FOLDER_URI, examples=["s3://bucket/dporuns/support-tone-v1-1a2b3c4d"]
    )
    """Folder of an archived run."""


class Checkpoints(run_config.CheckpointPolicy):
    """Checkpoints of the run; to start from another run it may be named."""

    resume_from: ResumeFrom | None = None
    """Start from the best adapter of another run."""


class GeneralQuestions(run_config.GeneralQuestions, Ruled):
    """The check for catastrophic forgetting, with questions from a place that a cluster can reach."""

    rules = (no_parent_folder("uri"),)

    uri: run_config.Uri | None = inherited(run_config.GeneralQuestions, "uri", pattern=FILE_URI)


class Evaluation(run_config.Evaluation):
    """The evaluation, with general questions from a place that a cluster can reach."""

    general: GeneralQuestions = inherited(run_config.Evaluation, "general", default=GeneralQuestions())


class Archive(run_config.ArchiveTarget, Immutable):
    """Where results are archived, and which, with the credentials for it."""

    mutable = frozenset({"secretRef"})
    rules = (
        no_parent_folder("uri"),
        Rule(
            "!has(self.secretRef) || !has(self.serviceAccountName)",
            lambda archive: archive.secret_ref is None or archive.service_account_name is None,
            "give secretRef or serviceAccountName, not both",
        ),
    )

    uri: run_config.Uri = inherited(run_config.ArchiveTarget, "uri", pattern=FOLDER_URI)
    secret_ref: SecretReference | None = None
    """Secret with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."""
    service_account_name: Name | None = Field(None, examples=["dporun-archiver"])
    """ServiceAccount with a cloud identity (such as IRSA) for the bucket; checkpoints are not uploaded with it."""
    retry_for_seconds: int = Field(259200, ge=0, le=31536000, examples=[3600])
    """Seconds of retries before the run fails; a deleted one has no end. Annotate dporun.io/retry=archive for more."""


class TensorBoard(Document):
    """TensorBoard beside the training, and after it."""

    enabled: bool = True
    """Run TensorBoard with a Service."""
    ttl_seconds_after_finished: int = Field(86400, ge=0, le=31536000, examples=[3600])
    """Seconds for which TensorBoard stays after the run has finished."""


class RunPolicy(Immutable):
    """Retries and limits."""

    mutable = frozenset({"ttlSecondsAfterFinished"})

    max_retries: int = Field(3, ge=0, le=100, examples=[0])
    """Repetitions after failures that may pass, of preparation and training together; preemptions do not count."""
    active_deadline_seconds: int | None = Field(None, ge=60, le=31536000, examples=[86400])
    """Longest time to train, waiting for a GPU not counted. No limit when absent."""
    pending_deadline_seconds: int | None = Field(None, ge=60, le=31536000, examples=[86400])
    """Longest time that an attempt may wait for a node or for its queue. No limit when absent."""
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


class DPORunSpec(Immutable):
    """A DPO fine-tuning run."""

    mutable = frozenset({"suspend", "deletionPolicy", "tensorboard"})
    rules = (
        Rule(
            "self.distributed.nodes == 1 || has(self.storage.claimName) || 'ReadWriteMany' in self.storage.accessModes",
            lambda spec: (
                spec.distributed.nodes == 1
                or spec.storage.claim_name is not None
                or "ReadWriteMany" in spec.storage.access_modes
            ),
            "distributed.nodes above 1 needs storage that all nodes can mount: "
            "set storage.accessModes to [ReadWriteMany], or storage.claimName",
        ),
        Rule(
            "self.resources.gpusPerNode == 0 || !has(self.distributed.processesPerNode) || "
            "self.distributed.processesPerNode == self.resources.gpusPerNode",
            lambda spec: (
                spec.resources.gpus_per_node == 0
                or spec.distributed.processes_per_node in {None, spec.resources.gpus_per_node}
            ),
            "distributed.processesPerNode must equal resources.gpusPerNode: one process drives one GPU "
            "(leave processesPerNode out)",
        ),
        Rule(
            "!has(self.archive) || self.archive.when != 'Passed' || self.evaluation.enabled",
            lambda spec: spec.archive is None or spec.archive.when != "Passed" or spec.evaluation.enabled,
            "archive.when: Passed needs evaluation.enabled: a run that is not evaluated passes nothing",
        ),
        Rule(
            "!has(self.model.quantization) || self.training.precision != 'fp32'",
            lambda spec: spec.model.quantization is None or spec.training.precision != "fp32",
            "model.quantization needs training.precision auto, bf16 or fp16: layers of 4 bits compute in 16",
        ),
    )

    model: Model
    """The base model."""
    dataset: Dataset
    """Preference pairs."""
    dpo: Dpo = Dpo()
    """The DPO objective."""
    lora: run_config.Lora = run_config.Lora()
    """The LoRA adapter."""
    training: run_config.Training = run_config.Training()
    """Optimisation."""
    distributed: Distributed = Distributed()
    """How many processes train together, and DeepSpeed."""
    resources: Resources = Resources()
    """What the training pods get, and where they run."""
    scheduling: Scheduling = Scheduling()
    """Queueing."""
    image: str | None = Field(
        None, max_length=512, pattern=IMAGE, examples=["registry.example.com/dporun/trainer:0.1.0"]
    )
    """Trainer image. The operator's default when absent; another must match the administrator's allow-list."""
    storage: Storage = Storage()
    """The volume of the run's results."""
    checkpoints: Checkpoints = Checkpoints()
    """Checkpoints of the run."""
    evaluation: Evaluation = Evaluation()
    """Evaluation after training, while the run still has its GPU."""
    tensorboard: TensorBoard = TensorBoard()
    """TensorBoard beside the training, and after it."""
    archive: Archive | None = None
    """Where results are archived. Nowhere when absent: they stay on the volume."""
    run_policy: RunPolicy = RunPolicy()
    """Retries and limits."""
    deletion_policy: DeletionPolicy = DeletionPolicy.ARCHIVE
    """Archive: a deleted run is archived first; Retain: its volume stays; Delete: its results go with it."""
    suspend: bool = False
    """Stop the run's pods after saving a checkpoint, until training is done; false again goes on from there."""

    @property
    def processes_per_node(self) -> int:
        """Training processes per pod: as asked for, or one per GPU, or one."""
        return self.distributed.processes_per_node or self.resources.gpus_per_node or 1

    @property
    def uploads_checkpoints(self) -> bool:
        """Whether the training pods copy checkpoints to the archive.

        They do not with a ServiceAccount: its identity would be that of everything in the pod, and where it does not
        exist, no pod would start.
        """
        return self.checkpoints.upload and self.archive is not None and self.archive.service_account_name is None

    @property
    def gpus(self) -> int:
        """GPUs in all."""
        return self.distributed.nodes * self.resources.gpus_per_node
