"""What the trainer reports: Progress while it runs, Outcome at the end, and the findings that both carry."""

from enum import StrEnum
from typing import Literal

from pydantic import Field

from dporun_api.document import Document, Finite
from dporun_api.memory import MemoryEstimate
from dporun_api.text import apart, decimals, percent
from dporun_api.v1alpha1.reasons import FailureReason


class Stage(StrEnum):
    """What a run's pod is doing."""

    PREPARING = "Preparing"
    LOADING = "Loading"
    TRAINING = "Training"
    EVALUATING = "Evaluating"
    REPORTING = "Reporting"
    ARCHIVING = "Archiving"
    DONE = "Done"


class Metrics(Document):
    """The newest value of each training metric; one that is unknown or not a number is absent."""

    train_loss: Finite | None = None
    """DPO loss on the training data."""
    eval_loss: Finite | None = None
    """DPO loss on the validation data."""
    learning_rate: Finite | None = None
    """Learning rate of the newest step."""
    grad_norm: Finite | None = None
    """Global gradient norm before clipping."""
    reward_chosen: Finite | None = None
    """Mean reward of chosen validation responses (of training responses before the first validation)."""
    reward_rejected: Finite | None = None
    """Mean reward of rejected responses."""
    reward_margin: Finite | None = None
    """Mean of chosen minus rejected rewards."""
    reward_accuracy: Finite | None = Field(None, ge=0, le=1)
    """Share of pairs whose chosen response has the higher reward."""


class Usage(Document):
    """How hard the processes' devices work, since the log before; what nobody can measure is absent."""

    tokens_per_second: Finite | None = Field(None, ge=0)
    """Tokens of both responses and their prompts, of all processes, per second of training steps."""
    model_flops_utilization: Finite | None = Field(None, ge=0)
    """Share of the GPUs' peak arithmetic that the model's own needs (MFU); recomputed activations do not count."""
    peak_memory_bytes: int | None = Field(None, ge=0)
    """Most memory that tensors took on one GPU; on the CPU, that one process took."""
    reserved_memory_bytes: int | None = Field(None, ge=0)
    """Most memory that torch holds of one GPU, unused parts included."""
    gpu_utilization: Finite | None = Field(None, ge=0, le=1)
    """Share of the last second in which the busiest GPU computed, by NVML."""


class BestCheckpoint(Document):
    """The checkpoint with the lowest validation loss."""

    step: int = Field(ge=0)
    """Optimizer step at which it was saved."""
    epoch: Finite | None = Field(None, ge=0)
    """Passes over the training data until then."""
    eval_loss: Finite | None = None
    """Its validation loss."""
    path: str | None = Field(None, max_length=512)
    """Folder, relative to the run's directory."""

    @property
    def name(self) -> str:
        """How people call it: its folder."""
        return self.path or f"checkpoint-{self.step}"


class CheckpointUpload(Document):
    """The copy of the checkpoints in the archive while training goes on."""

    checkpoint: str | None = Field(None, max_length=64)
    """Newest checkpoint that is complete in the archive: its folder there."""
    step: int | None = Field(None, ge=0)
    """Optimizer step at which it was saved."""
    time: str | None = Field(None, max_length=32)
    """When it was complete there, in UTC."""
    problem: str | None = Field(None, max_length=256)
    """Why the newest one is not there yet; it is tried again."""


class DatasetSummary(Document):
    """Size of the data, and what looks wrong with it."""

    train_rows: int = Field(ge=0)
    """Preference pairs used for training."""
    validation_rows: int = Field(ge=0)
    """Preference pairs held out."""
    dropped_rows: int = Field(0, ge=0)
    """Rows left out, by the policies of spec.dataset; dataset_report.json lists them."""
    warnings: tuple[str, ...] = Field((), max_length=20)
    """What looks wrong, with row numbers."""
    fingerprint: str | None = Field(None, max_length=64)
    """SHA-256 over the rows, in order."""
    format: str | None = Field(None, max_length=256)
    """What the training rows were read as."""


class HealthState(StrEnum):
    """Diagnosis of a run's curves."""

    ON_TRACK = "OnTrack"
    OVERFITTING = "Overfitting"
    UNDERFITTING = "Underfitting"
    UNSTABLE = "Unstable"
    CONFUSED = "Confused"
    UNKNOWN = "Unknown"


class Suggestion(Document):
    """One change of this run's manifest that should help."""

    path: str = Field(max_length=128, examples=["spec.training.learningRate"])
    """Field of the manifest, or a word for what is not a field (such as ``dataset``)."""
    current: float | int | bool | str | None = None
    """Its value in this run."""
    proposed: float | int | bool | str | None = None
    """The value to try."""
    reason: str = Field(max_length=512)
    """Why, in words."""


class Health(Document):
    """Diagnosis of a run, with its evidence."""

    state: HealthState = HealthState.UNKNOWN
    """Diagnosis of the run's curves: the most serious finding."""
    evidence: tuple[str, ...] = Field((), max_length=20)
    """Steps and values that show it."""
    suggestions: tuple[Suggestion, ...] = Field((), max_length=10)
    """What to change, as values of this run's own manifest."""


class EvaluationSummary(Document):
    """Results on the validation data, averaged per example."""

    accuracy: Finite = Field(ge=0, le=1)
    """Share of pairs whose chosen response has the higher reward; a tie counts as neither."""
    accuracy_low: Finite | None = None
    """Lower end of its 95 % interval (Wilson)."""
    accuracy_high: Finite | None = None
    """Upper end of its 95 % interval."""
    ties: int = Field(0, ge=0)
    """Pairs with equal rewards."""
    avg_chosen_reward: Finite
    """Mean reward of chosen responses."""
    avg_rejected_reward: Finite
    """Mean reward of rejected responses."""
    reward_margin: Finite
    """Mean of chosen minus rejected rewards."""
    reward_margin_low: Finite | None = None
    """Lower end of its 95 % interval (bootstrap); absent where the pairs are too few for one."""
    reward_margin_high: Finite | None = None
    """Upper end of its 95 % interval."""
    beta: Finite | None = None
    """The rewards were computed with it, and are proportional to it."""
    forgetting: Finite | None = Field(None, ge=0, le=1)
    """Share of general knowledge lost: 0 is nothing, 1 is everything."""
    known_questions: int | None = Field(None, ge=0)
    """General questions that the base model answers correctly: so many it could forget."""
    better: int = Field(0, ge=0)
    """Generated answers that are better than the base model's."""
    worse: int = Field(0, ge=0)
    """Generated answers that are worse."""
    equal: int = Field(0, ge=0)
    """Generated answers that are equally good."""
    better_p_value: Finite | None = Field(None, ge=0, le=1)
    """Sign test of better against worse: how likely so uneven a result is when neither model is better."""
    better_than_base: bool | None = None
    """Whether the answers are noticeably better than the base model's: more often better than worse, and p <= 0.05."""
    examples: int = Field(ge=0)
    """Pairs compared."""


class VerdictState(StrEnum):
    """How good the run's result is."""

    GOOD = "Good"
    FAIR = "Fair"
    NEEDS_IMPROVEMENT = "NeedsImprovement"


class GateOutcome(StrEnum):
    """How a gate was met."""

    PASSED = "Passed"
    MISSED = "Missed"
    UNDECIDED = "Undecided"
    NOT_MEASURED = "NotMeasured"


class GateResult(Document):
    """One gate of evaluation.gates and how it was met."""

    name: str = Field(max_length=64)
    """Field of evaluation.gates."""
    limit: Finite
    """What was asked."""
    measured: Finite | None = None
    """What was measured; absent where nothing was."""
    outcome: GateOutcome
    """Passed, Missed, Undecided (too few examples to tell) or NotMeasured."""
    needed_to_decide: int | None = Field(None, ge=1)
    """Absent where the examples decide at 95 %, else how many would, were the measured value the same: pairs, answers
    or questions; 1000000 stands for as many and more."""


class Verdict(Document):
    """Judgement of the result."""

    state: VerdictState
    """Judgement of the result: Good, Fair or NeedsImprovement."""
    passed: bool
    """Whether the result was evaluated, and every gate that is in force was passed."""
    gates: tuple[GateResult, ...] = Field((), max_length=10)
    """The gates that are in force: those that are not null, and whose check is not switched off."""
    reasons: tuple[str, ...] = Field((), max_length=20)
    """Why, in words."""

    def accuracy(self, result: EvaluationSummary) -> str:
        """Write the accuracy of ``result`` so that it does not read like the limit that it is compared with."""
        return apart(result.accuracy, *self._limits("accuracy"), write=percent, digits=1)

    def reward_margin(self, result: EvaluationSummary) -> str:
        """Likewise its reward margin."""
        return apart(result.reward_margin, *self._limits("rewardMargin"), write=decimals, digits=2)

    def forgetting(self, result: EvaluationSummary) -> str | None:
        """Likewise the share of knowledge that it lost; None where that was not measured."""
        lost = result.forgetting
        return None if lost is None else apart(lost, *self._limits("forgetting"), write=percent, digits=1)

    def _limits(self, name: str) -> list[float]:
        return [gate.limit for gate in self.gates if gate.name == name]

    @property
    def gates_in_words(self) -> str:
        """How the gates stand, in a few words."""
        if self.passed:
            return "every gate passed"
        words = {
            GateOutcome.MISSED: "missed",
            GateOutcome.UNDECIDED: "undecided",
            GateOutcome.NOT_MEASURED: "not measured",
        }
        return ", ".join(f"{g.name} {words[g.outcome]}" for g in self.gates if g.outcome in words) or "not evaluated"


class Failure(Document):
    """Why and where a run failed."""

    reason: FailureReason
    """One word for programs."""
    message: str = Field(max_length=1024)
    """One sentence for people."""
    hint: str | None = Field(None, max_length=512)
    """What to do about it."""
    rank: int | None = None
    """Training process that failed first."""
    exit_code: int | None = None
    """Its exit code."""
    pod: str | None = Field(None, max_length=253)
    """Pod that failed."""
    log_tail: str | None = Field(None, max_length=2048)
    """Last lines of its log."""


class ArchiveResult(Document):
    """What was archived."""

    uri: str = Field(max_length=1280)
    """Folder of the run in the archive."""
    manifest_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """SHA-256 of manifest.json, which lists that of every other file."""
    files: int = Field(ge=0)
    """Files archived, the manifest not counted."""
    bytes: int = Field(ge=0)
    """Their size in all."""
    adapter: bool | None = None
    """Whether an adapter is among them; unknown from a trainer of before."""
    mended: int = Field(0, ge=0)
    """Files, the manifest included, that had been changed or deleted since they were archived and were stored again."""


class Position(Document):
    """How far training is."""

    percent: Finite = Field(0, ge=0, le=100)
    """How much of the pod's work is done, in percent; loading, evaluation and report are part of it."""
    step: int = Field(0, ge=0)
    """Optimizer steps done."""
    total_steps: int = Field(0, ge=0)
    """Optimizer steps in all."""
    epoch: Finite = Field(0, ge=0)
    """Passes over the training data."""
    eta_seconds: Finite | None = Field(None, ge=0)
    """Seconds left, evaluation included."""
    samples_per_second: Finite | None = Field(None, ge=0)
    """Preference pairs per second."""


class Progress(Position):
    """A snapshot of a running pod, served as ``GET /progress`` and kept as progress.json."""

    version: Literal[1] = 1
    stage: Stage = Stage.LOADING
    detail: str | None = Field(None, max_length=256)
    """What is being done, e.g. ``generating 12/60``."""
    metrics: Metrics = Metrics()
    usage: Usage = Usage()
    best_checkpoint: BestCheckpoint | None = None
    checkpoint_upload: CheckpointUpload | None = None
    health: Health | None = None
    resumed_from: str | None = Field(None, max_length=512)
    """Checkpoint from which this attempt went on."""
    updated_at: Finite = Field(0, ge=0)
    """Unix time of this snapshot; a heartbeat as well."""


class OutcomeState(StrEnum):
    """How a command ended."""

    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    PREEMPTED = "Preempted"


class Outcome(Document):
    """How a command ended: written to the volume and, cut to 4096 bytes, as the container's termination message."""

    version: Literal[1] = 1
    state: OutcomeState
    message: str = Field("", max_length=1024)
    """One sentence for people."""
    failure: Failure | None = None
    resumed_from: str | None = Field(None, max_length=512)
    step: int | None = Field(None, ge=0)
    dataset: DatasetSummary | None = None
    memory: MemoryEstimate | None = None
    metrics: Metrics | None = None
    best_checkpoint: BestCheckpoint | None = None
    checkpoint_upload: CheckpointUpload | None = None
    health: Health | None = None
    evaluation: EvaluationSummary | None = None
    verdict: Verdict | None = None
    archive: ArchiveResult | None = None
