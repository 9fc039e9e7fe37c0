"""What the trainer writes down about a run beside the documents of the API: typed, and in the libraries' own words.

Field names are the keys on disk. A field that a later version adds has a default, so that an older folder still reads.
"""

from pydantic import BaseModel, ConfigDict

from dporun_api.results import EvaluationSummary
from dporun_api.run_config import RunConfig


class Record(BaseModel):
    """Immutable; NaN and the infinities are strings in JSON, and what a newer version added is ignored."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", use_attribute_docstrings=True, ser_json_inf_nan="strings", protected_namespaces=()
    )


# training_config.json


class RecordedDataset(Record):
    """Rows that were really used."""

    train: str
    validation: str | None
    train_rows: int
    validation_rows: int
    fingerprint: str | None


class RecordedDpo(Record):
    """The objective, in TRL's words."""

    beta: float
    loss_type: tuple[str, ...]
    """TRL's; labelSmoothing may have split one loss into two."""
    loss_weights: tuple[float, ...] | None
    label_smoothing: float
    max_length: int
    precompute_ref_log_probs: bool
    router_aux_loss_coef: float | None = None
    """None in records of the first version, which took the coefficient of the model's configuration."""


class RecordedLora(Record):
    """The adapter, in PEFT's words."""

    r: int
    lora_alpha: int
    lora_dropout: float
    target_modules: tuple[str, ...]
    """Names of the layers that ``all-linear`` stands for, sorted."""
    target_parameters: tuple[str, ...] = ()
    """Experts, kept as parameters of one module, that get an adapter; it takes no dropout there."""
    trainable_parameters: int
    starts_from: str | None
    """URI of the archived run whose adapter was the start."""


class RecordedTraining(Record):
    """Optimisation, in transformers' words."""

    num_train_epochs: float
    steps: int
    steps_per_epoch: int
    per_device_train_batch_size: int
    gradient_accumulation_steps: int
    effective_batch_size: int
    learning_rate: float
    lr_scheduler_type: str
    warmup_steps: float
    optimizer: str
    weight_decay: float
    max_grad_norm: float
    precision: str
    gradient_checkpointing: bool
    logging_steps: int
    early_stopping_patience: int | None
    stop_on_unstable: bool


class RecordedDistribution(Record):
    """Processes, and what they ran on."""

    world_size: int
    nodes: int
    processes_per_node: int
    zero_stage: int
    offload_optimizer: bool
    device: str


class TrainingRecord(Record):
    """training_config.json: what really ran, every "auto" decided, with versions and fingerprints."""

    run: str
    """Name of the run."""
    model: str
    """URI of the base model."""
    model_revision: str | None
    image: str | None
    seed: int
    dataset: RecordedDataset
    dpo: RecordedDpo
    lora: RecordedLora
    training: RecordedTraining
    distributed: RecordedDistribution
    packages: dict[str, str]
    """Versions of what decides the result."""
    requested: RunConfig
    """What the user asked."""


# training_metrics.json


class TrainingMetrics(Record):
    """training_metrics.json: totals over all attempts. Training writes it last, so it marks that training is done."""

    train_loss: float | None = None
    train_runtime: float | None = None
    """Seconds."""
    train_samples_per_second: float | None = None
    train_steps_per_second: float | None = None
    total_flos: float | None = None
    epoch: float | None = None
    eval_loss: float | None = None
    """Of the best checkpoint, as are the next two."""
    best_step: int | None = None
    best_epoch: float | None = None
    steps: int | None = None
    num_tokens: int | None = None
    attempts: int = 1
    non_finite_steps: int = 0


# merged/merge.json


class MergeRecord(Record):
    """merge.json, as far as it is reported: how near the merged model is to what was trained."""

    dtype: str
    """Of its weights, in torch's words."""
    quantized_difference: float | None = None
    """From the logits of the 4-bit base + adapter, root mean square as a share of them; None where all had 16 bits."""


# evaluation/


class AnswerCounts(Record):
    """How the tuned model's generated answers compare with the base model's."""

    compared: int = 0
    better: int = 0
    worse: int = 0
    equal: int = 0
    better_than_base: bool | None = None
    """Noticeably: more often better than worse, and p <= 0.05; None when nothing was compared."""
    better_p_value: float | None = None
    """Sign test of better against worse."""


class EvaluationRecord(AnswerCounts):
    """evaluation_metrics.json: means over examples, never over batches; intervals are at 95 %."""

    accuracy: float
    """Share of pairs whose chosen response has the strictly higher reward."""
    avg_chosen_reward: float
    avg_rejected_reward: float
    reward_margin: float
    accuracy_low: float | None = None
    """Wilson's interval."""
    accuracy_high: float | None = None
    reward_margin_low: float | None = None
    """Bootstrap interval; None where the pairs are too few for one."""
    reward_margin_high: float | None = None
    ties: int = 0
    examples: int
    """Pairs evaluated."""
    skipped: int = 0
    """Pairs left out because their prompt alone is too long."""
    beta: float | None = None
    """The rewards were computed with it."""
    base_logps_accuracy: float | None = None
    """Share of pairs whose chosen response the base model alone finds more likely: where the run started."""
    tuned_logps_accuracy: float | None = None
    forgetting: float | None = None
    """Score of forgetting.json, once that was measured."""
    known_questions: int | None = None
    """base_right of forgetting.json."""
    adapter_sha256: str | None = None
    """Weights that were evaluated, where a run evaluated its own."""

    def answers(self) -> AnswerCounts:
        """The counts of the answers alone."""
        return AnswerCounts(**{name: getattr(self, name) for name in AnswerCounts.model_fields})

    def summary(self) -> EvaluationSummary:
        """What a run's status holds of it."""
        return EvaluationSummary(**{name: getattr(self, name) for name in EvaluationSummary.model_fields})


class Rewards(Record):
    """Rewards of one pair."""

    chosen: float
    rejected: float
    margin: float


class ComparedExample(Record):
    """One pair of the test data; an example beyond maxExamples has rewards and no answers."""

    index: int
    """0-based position in the data."""
    prompt: str
    chosen: str
    """The ground truth."""
    rejected: str
    base: str | None = None
    """The base model's answer."""
    tuned: str | None = None
    better: str | None = None
    """base, tuned or tie."""
    why: str | None = None
    rewards: Rewards
    logps_per_token: dict[str, dict[str, float]] | None = None
    """By response (chosen, rejected) and model (base, tuned)."""


class ComparisonRecord(Record):
    """comparison_results.json: the test examples side by side."""

    summary: AnswerCounts
    examples: tuple[ComparedExample, ...]


class AskedQuestion(Record):
    """What one general question showed; likelihoods in nats per token."""

    question: str
    answer: str
    """The reference answer."""
    category: str = "general"
    base: str
    tuned: str
    base_right: bool
    tuned_right: bool
    base_nll: float | None = None
    tuned_nll: float | None = None
    drift: float | None = None
    loss: float
    """Share of what the base model knew that the tuned one lost."""


class CategoryScore(Record):
    """Forgetting within one category of questions."""

    score: float
    questions: int
    base_right: int
    tuned_right: int


class ForgettingRecord(Record):
    """forgetting.json: how much general knowledge was lost, and by which questions that was seen."""

    score: float
    """0 is nothing, 1 is everything."""
    questions: int
    base_right: int
    tuned_right: int
    lost: int
    gained: int
    base_nll: float | None = None
    tuned_nll: float | None = None
    drift: float | None = None
    categories: dict[str, CategoryScore] = {}
    worst: tuple[AskedQuestion, ...] = ()
    items: tuple[AskedQuestion, ...] = ()
    adapter_sha256: str | None = None
    """Weights that were asked, where a run evaluated its own."""
