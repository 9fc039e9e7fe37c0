"""RunConfig: everything the pods of a run need to know, and the hyper-parameter sections it shares with the DPORun API.

The sections are the API's own (``v1alpha1.spec`` builds the custom resource from them), so a field, its default
and its documentation exist once. Field docstrings become ``kubectl explain``.
"""

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from dporun_api.document import Document, Finite
from dporun_api.row_formats import Candidates, ColumnName, Columns, DatasetFormat, Transcripts

Uri = Annotated[str, StringConstraints(min_length=1, max_length=1024)]
"""hf://, s3:// or pvc://; outside a cluster also a path or file:// (the API narrows it)."""

Loss = Literal[
    "sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot", "aot_unpaired",
    "apo_zero", "apo_down", "discopop", "sft", "sigmoid_norm",
]  # fmt: skip
"""The loss types of TRL's DPOTrainer."""

REVISION = r"^[\w./-]+$"
ENDPOINT_URL = r"^https?://[^/\s]+/?$"

Switch = Literal["auto", "always", "never"]
Quantization = Literal["nf4"]
Precision = Literal["auto", "bf16", "fp16", "fp32"]


class Dpo(Document):
    """The DPO objective, in the words of TRL's DPOConfig."""

    beta: Finite = Field(0.1, gt=0, le=100, examples=[0.05])
    """How strongly the tuned model is kept near the base model; higher keeps it nearer."""
    loss: tuple[Loss, ...] = Field(("sigmoid",), min_length=1, max_length=4, examples=[["sigmoid", "sft"]])
    """Loss types of TRL's DPOTrainer; several are added up, weighted by lossWeights."""
    loss_weights: tuple[Finite, ...] | None = Field(None, max_length=4, examples=[[1.0, 0.5]])
    """One weight per loss type. All 1 when absent."""
    label_smoothing: Finite = Field(0.0, ge=0, lt=0.5, examples=[0.1])
    """Share of preference labels taken to be flipped; above 0 is conservative DPO."""
    max_length: int = Field(1024, ge=16, le=131072, examples=[2048])
    """Longest prompt plus response, in tokens; longer responses are cut, longer prompts are refused or dropped."""
    precompute_ref_log_probs: Switch = "auto"
    """Compute the base model's log-probabilities once before training; auto does so when that pays."""
    router_aux_loss_coef: Finite = Field(0.0, ge=0, le=1, examples=[0.001])
    """Weight of the router's load-balancing loss in training; logged losses leave it out. For mixtures of experts."""


class Lora(Document):
    """The LoRA adapter, in the words of PEFT's LoraConfig."""

    rank: int = Field(16, ge=1, le=1024, examples=[8])
    """Rank r of the adapter's matrices."""
    alpha: int = Field(32, ge=1, le=4096, examples=[16])
    """Scaling numerator: the adapter is multiplied by alpha / rank."""
    dropout: Finite | None = Field(None, ge=0, lt=1, examples=[0.1])
    """Dropout on the adapter's input while training. When absent 0.05, or 0 where experts get an adapter: they take
    none."""
    target_modules: tuple[Annotated[str, StringConstraints(min_length=1, max_length=128)], ...] = Field(
        ("all-linear",), min_length=1, max_length=64, examples=[["q_proj", "v_proj"]]
    )
    """Names of the linear layers that get an adapter; all-linear means every one but the output head."""

    def effective_dropout(self, *, takes_dropout: bool) -> float:
        """Dropout that training uses, on an adapter that takes it or not."""
        if self.dropout is not None:
            return self.dropout
        return 0.05 if takes_dropout else 0.0


class LrScheduler(StrEnum):
    """Learning-rate schedules of transformers."""

    COSINE = "cosine"
    LINEAR = "linear"
    CONSTANT = "constant"
    CONSTANT_WITH_WARMUP = "constant_with_warmup"
    POLYNOMIAL = "polynomial"


class Training(Document):
    """Optimisation, in the words of transformers' TrainingArguments."""

    epochs: Finite = Field(2, gt=0, le=1000, examples=[3])
    """Passes over the training data; a checkpoint is saved and validated after each."""
    learning_rate: Finite = Field(5e-6, gt=0, le=1, examples=[5e-5])
    """Peak learning rate of AdamW."""
    per_device_batch_size: int = Field(2, ge=1, le=4096, examples=[4])
    """Preference pairs per process and forward pass."""
    gradient_accumulation_steps: int = Field(4, ge=1, le=4096, examples=[8])
    """Forward passes per optimizer step; the effective batch is this times perDeviceBatchSize times all processes."""
    max_grad_norm: Finite = Field(1.0, gt=0, le=1000, examples=[0.5])
    """Gradients are clipped to this norm."""
    warmup_ratio: Finite = Field(0.1, ge=0, lt=1, examples=[0.03])
    """Share of all steps during which the learning rate rises to its peak."""
    lr_scheduler: LrScheduler = Field(LrScheduler.COSINE, examples=["linear"])
    """How the learning rate falls after the warm-up; constant has neither."""
    weight_decay: Finite = Field(0.0, ge=0, le=1, examples=[0.01])
    """Decoupled weight decay of AdamW."""
    precision: Precision = "auto"
    """Arithmetic of the forward and backward pass; auto is bf16 where the GPU has it, else fp16, and fp32 on CPU."""
    gradient_checkpointing: Switch = "auto"
    """Trade time for memory by recomputing activations; auto decides by an estimate of the memory needed."""
    seed: int = Field(42, ge=0, le=2**32 - 1, examples=[7])
    """Seed of data order, adapter initialisation and dropout."""
    logging_steps: int | None = Field(None, ge=1, le=100000, examples=[10])
    """Optimizer steps between two log entries. About 100 entries a run when absent."""
    early_stopping_patience: int | None = Field(None, ge=1, le=1000, examples=[2])
    """Stop after this many validations without a lower loss. Never when absent."""
    stop_on_unstable: bool = False
    """Stop the run, keeping its best checkpoint, when its health turns Unstable."""


class DeepSpeed(Document):
    """DeepSpeed ZeRO."""

    zero_stage: Literal[1, 2] = 2
    """ZeRO stage: 1 shares the optimizer state among the processes, 2 the gradients as well."""
    offload_optimizer: bool = False
    """Keep the optimizer state in host memory."""


class Gates(Document):
    """What a run must reach to pass. A gate that is null is open; one whose check is switched off is not asked."""

    accuracy: Finite | None = Field(0.8, ge=0, le=1, examples=[0.7])
    """Lowest share of validation pairs whose chosen response gets the higher reward."""
    reward_margin: Finite | None = Field(2.0, ge=0, le=1000, examples=[1.0])
    """Lowest mean difference between the rewards of chosen and rejected responses."""
    forgetting: Finite | None = Field(0.1, ge=0, le=1, examples=[0.2])
    """Highest share of general knowledge that the tuned model may lose."""
    better_than_base: Finite | None = Field(0.05, gt=0, le=1, examples=[0.2])
    """Highest p-value of the sign test on the generated answers, which must be better than the base model's more often
    than worse. With 1, more often is enough."""


class GeneralQuestions(Document):
    """The check for catastrophic forgetting on general questions."""

    enabled: bool = True
    """Ask the base and the tuned model general questions and compare."""
    uri: Uri | None = Field(None, examples=["s3://bucket/general.jsonl"])
    """JSONL with question, answer and optionally accept, match and category. A built-in set of 60 when absent."""


class Evaluation(Document):
    """Evaluation after training, while the run still has its GPU."""

    enabled: bool = True
    """Compare base and tuned model on the validation data, and judge the run."""
    max_examples: int = Field(200, ge=1, le=100000, examples=[50])
    """At most this many validation examples get generated answers; rewards are computed for all."""
    max_new_tokens: int = Field(128, ge=1, le=8192, examples=[256])
    """Longest generated answer, in tokens."""
    general: GeneralQuestions = GeneralQuestions()
    """The check for catastrophic forgetting."""
    gates: Gates = Gates()
    """Thresholds for verdict.passed."""


class ArchiveContent(StrEnum):
    """Parts of the run's directory that can be archived."""

    BEST = "best"
    MERGED = "merged"
    LOGS = "logs"
    EVALUATION = "evaluation"
    CHECKPOINTS = "checkpoints"


class ArchiveWhen(StrEnum):
    """Which runs are archived."""

    FINISHED = "Finished"
    SUCCEEDED = "Succeeded"
    PASSED = "Passed"


class ArchiveTarget(Document):
    """Where results are archived, and which."""

    uri: Uri = Field(examples=["s3://bucket/dporuns"])
    """S3 folder; the run's own folder is made below it."""
    endpoint: str | None = Field(None, pattern=ENDPOINT_URL, max_length=253, examples=["https://minio.example.com"])
    """Address of an S3-compatible server. Amazon's own when absent."""
    region: str | None = Field(None, max_length=64, examples=["eu-central-1"])
    """Region of the bucket. The S3 client's default when absent."""
    when: ArchiveWhen = ArchiveWhen.FINISHED
    """Archive every finished run, only those that succeeded, or only those that passed their gates."""
    include: tuple[ArchiveContent, ...] = Field(
        (ArchiveContent.BEST, ArchiveContent.MERGED, ArchiveContent.LOGS, ArchiveContent.EVALUATION),
        min_length=1,
        max_length=5,
        examples=[["best", "evaluation"]],
    )
    """Parts to archive; configuration, metrics and the manifest always are."""


class Model(Document):
    """The base model."""

    uri: Uri = Field(examples=["hf://Qwen/Qwen2.5-0.5B-Instruct"])
    """hf://OWNER/NAME, s3://BUCKET/PREFIX or pvc://CLAIM/PATH of a transformers model in safetensors."""
    revision: str | None = Field(None, pattern=REVISION, max_length=128, examples=["main"])
    """Branch, tag or commit on the Hub; the commit that it resolves to is recorded."""
    quantization: Quantization | None = Field(None, examples=["nf4"])
    """nf4: train on weights of 4 bits (QLoRA), which need a quarter of the memory. As they are stored when absent."""


class RowPolicy(StrEnum):
    """What becomes of rows that have something in common with others."""

    KEEP = "Keep"
    DROP = "Drop"
    FAIL = "Fail"


class InvalidPolicy(StrEnum):
    """What becomes of rows that cannot be used."""

    DROP = "Drop"
    FAIL = "Fail"


class OverlongPolicy(StrEnum):
    """What becomes of pairs whose prompt leaves no room for a response."""

    DROP = "Drop"
    FAIL = "Fail"
    TRUNCATE_PROMPT = "TruncatePrompt"


class InvalidRows(Document):
    """What becomes of rows that cannot be used: a response is empty, a column is missing, and so on."""

    policy: InvalidPolicy = InvalidPolicy.DROP
    """Drop: leave them out, up to maxFraction; Fail: refuse the run for the first one."""
    max_fraction: Finite = Field(0.01, ge=0, le=1, examples=[0.05])
    """Largest share of rows that may be left out; with more, the run is refused."""


class Dataset(Document):
    """Preference pairs: prompt, chosen and rejected, as text or as chat messages."""

    train: Uri = Field(examples=["s3://bucket/dpo_train.jsonl"])
    """Files of rows (JSONL, JSON, Parquet, CSV): hf://OWNER/NAME, or a file, folder or glob in s3:// or pvc://. Add
    ?config=NAME&split=train[:10%] for a part."""
    validation: Uri | None = Field(None, examples=["s3://bucket/dpo_val.jsonl"])
    """Held-out pairs, from the same kinds of place. Split off from train when absent."""
    validation_fraction: Finite | None = Field(None, gt=0, lt=1, examples=[0.05])
    """Share of the training prompts to hold out when validation is absent. 0.1 when this is absent too."""
    max_rows: int | None = Field(None, ge=2, le=2**31 - 1, examples=[20000])
    """Use this many rows of train, drawn with training.seed whatever their order; all when absent."""
    format: DatasetFormat | None = Field(None, examples=["Preference"])
    """Format of the rows. Recognised by the first rows when absent."""
    transcripts: Transcripts = Transcripts.TURNS
    """Read "Human:" and "Assistant:" in texts as turns of a chat, where the model has a chat template; Keep leaves
    them text."""
    candidates: Candidates = Candidates()
    """What becomes of several scored or ranked responses to a prompt."""
    columns: Columns = Columns()
    """Names that columns have in the data, where they are others than those of its format."""
    group_by: ColumnName | None = Field(None, examples=["topic"])
    """Column of the rows, such as a topic or a conversation: what has the same value is held out together."""
    invalid_rows: InvalidRows = InvalidRows()
    """What becomes of rows that cannot be used."""
    overlong: OverlongPolicy = OverlongPolicy.DROP
    """Pairs whose prompt fills dpo.maxLength. TruncatePrompt: the beginning of the prompt is cut, so that the responses
    have room."""
    identical_responses: RowPolicy = RowPolicy.DROP
    """Pairs whose responses are the same tokens once cut to dpo.maxLength: training learns nothing from them."""
    contradictions: RowPolicy = RowPolicy.KEEP
    """Pairs that are there in both orders. Drop: neither is used."""
    duplicates: RowPolicy = RowPolicy.KEEP
    """Pairs that repeat an earlier one, or nearly do. Drop: the first one is used."""
    leaks: RowPolicy = RowPolicy.KEEP
    """Training pairs whose prompt is in the data of validation, too, or nearly is. Drop: validation keeps it."""
    similarity: Finite = Field(0.8, ge=0.5, le=1, examples=[0.9])
    """Share of three-word sequences that near copies have in common (Jaccard, estimated by MinHash); 1: only exact
    copies count."""


class ResumePolicy(StrEnum):
    """What an attempt does with checkpoints of earlier attempts."""

    AUTO = "auto"
    NEVER = "never"


class CheckpointPolicy(Document):
    """When checkpoints are saved, and used."""

    resume: ResumePolicy = ResumePolicy.AUTO
    """auto: an attempt goes on from the newest complete checkpoint; never: it starts again."""
    every_steps: int | None = Field(None, ge=1, le=1000000, examples=[500])
    """Save (and validate) every so many optimizer steps as well as after each epoch."""
    upload: bool = True
    """Copy checkpoints to archive.uri while training goes on, so that a lost volume loses nothing that was trained."""


class CheckpointConfig(CheckpointPolicy):
    """Checkpoints of the run."""

    resume_from: Uri | None = Field(None, examples=["s3://bucket/dporuns/support-tone-v1-1a2b3c4d"])
    """Archived run whose best adapter this run starts from."""


ENVIRONMENT_PREFIXES = ("NCCL_", "TORCH_NCCL_", "UCX_", "FI_", "PYTORCH_")
"""Of variables that a run may set: those of NCCL, of its network plugins (UCX, libfabric) and of torch's memory."""
Variables = dict[Annotated[str, StringConstraints(max_length=128)], Annotated[str, StringConstraints(max_length=1024)]]


class Topology(Document):
    """How many processes train together."""

    nodes: int = Field(1, ge=1, le=64)
    """Pods."""
    processes_per_node: int = Field(1, ge=1, le=64)
    """Training processes per pod; one per GPU."""
    gpus_per_node: int = Field(0, ge=0, le=64)
    """GPUs that each pod is given; 0 where none were asked for, or nobody knows."""
    gpu_memory: int | None = Field(None, ge=0)
    """Bytes of one GPU, where the user says so."""
    environment: Variables = Field({})
    """Variables of the training processes, besides those of the pod."""
    deepspeed: DeepSpeed = DeepSpeed()
    """DeepSpeed ZeRO."""

    @property
    def world_size(self) -> int:
        """Processes in all."""
        return self.nodes * self.processes_per_node


class Identity(Document):
    """Which run this is."""

    name: str = Field(pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$", max_length=253)
    namespace: str | None = None
    uid: str | None = Field(None, pattern=r"^[0-9a-f-]{8,36}$")

    @property
    def directory(self) -> str:
        """Name of the run's folder on the volume and in the archive.

        The UID keeps a run that is deleted and created again under the same name apart from its predecessor.
        """
        return f"{self.name}-{self.uid[:8]}" if self.uid else self.name


class RunConfig(Document):
    """Input of every command of the trainer image; written by the operator or by ``dporun run --local``."""

    version: Literal[1] = 1
    run: Identity
    model: Model
    dataset: Dataset
    dpo: Dpo = Dpo()
    lora: Lora = Lora()
    training: Training = Training()
    topology: Topology = Topology()
    checkpoints: CheckpointConfig = CheckpointConfig()
    evaluation: Evaluation = Evaluation()
    archive: ArchiveTarget | None = None
    grace_period_seconds: int = Field(120, ge=10)
    """Seconds between SIGTERM and SIGKILL; a checkpoint is saved within them."""
    stall_seconds: int = Field(1800, ge=1)
    """Seconds without progress after which an attempt counts as stalled."""
    image: str | None = None
    """The image that runs, recorded for reproduction."""
    manifest: dict[str, object] | None = None
    """The DPORun as the user wrote it, recorded in the report and used to suggest changes."""

    @model_validator(mode="after")
    def _weights_match_losses(self) -> Self:
        if self.dpo.loss_weights is not None and len(self.dpo.loss_weights) != len(self.dpo.loss):
            raise ValueError("dpo.lossWeights must have one weight per entry of dpo.loss")
        return self

    @property
    def effective_batch_size(self) -> int:
        """Preference pairs per optimizer step."""
        return (
            self.training.per_device_batch_size * self.training.gradient_accumulation_steps * self.topology.world_size
        )
