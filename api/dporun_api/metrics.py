"""The metrics of training: how TRL logs them, where the status reports them, and what people read.

Everything that names, formats or draws a metric reads this table. A new metric takes a row here, a chart if it is to
be drawn, a field of ``results.Metrics`` if the status is to report it, and the code that computes it.
"""

from dataclasses import dataclass
from enum import StrEnum


class Split(StrEnum):
    """The data that a metric is measured on."""

    TRAINING = "training"
    VALIDATION = "validation"


@dataclass(frozen=True)
class Metric:
    """One quantity that TRL logs."""

    key: str
    """Key in TRL's log when it is measured on the training data; see ``log_key``."""
    label: str
    """Name for people."""
    tag: str
    """TensorBoard's name of it, the same for both splits; TensorBoard groups and sorts by it."""
    validated: bool = True
    """Whether it is measured on the validation data, too."""
    training: str | None = None
    """Field of ``results.Metrics`` that reports the value on the training data."""
    validation: str | None = None
    """Field that reports the value on the validation data. If it is the same field, this value takes precedence."""
    short: str = ""
    """Name in a line of many values; such lines leave out a metric that has none."""
    format: str = ".3g"
    """Format specification of a value in such a line."""
    curve: str = ""
    """What distinguishes its curve in a chart, besides the split."""

    @property
    def splits(self) -> tuple[Split, ...]:
        """The data that it is measured on."""
        return tuple(Split) if self.validated else (Split.TRAINING,)

    def log_key(self, split: Split) -> str:
        """Key in TRL's log."""
        return self.key if split is Split.TRAINING else f"eval_{self.key}"

    def field(self, split: Split) -> str | None:
        """Field of ``results.Metrics``, None when the status does not report it."""
        return self.training if split is Split.TRAINING else self.validation

    def label_of(self, split: Split) -> str:
        """Name for people, such as ``validation loss``."""
        return f"{split} {self.label}" if self.validated else self.label

    def short_of(self, split: Split) -> str:
        """Name in a line of many values, such as ``eval loss``."""
        return self.short if split is Split.TRAINING else f"eval {self.short}"

    def curve_of(self, split: Split) -> str:
        """Name of its curve in the legend of a chart, such as ``chosen, validation``."""
        parts = [self.curve] if self.curve else []
        return ", ".join([*parts, split] if self.validated else parts) or self.label


LOSS = Metric(
    key="loss",
    label="loss",
    tag="loss",
    training="train_loss",
    validation="eval_loss",
    short="loss",
    format=".4f",
)
REWARD_ACCURACY = Metric(
    key="rewards/accuracies",
    label="reward accuracy",
    tag="rewards/accuracy",
    training="reward_accuracy",
    validation="reward_accuracy",
    short="accuracy",
    format=".0%",
)
REWARD_MARGIN = Metric(
    key="rewards/margins",
    label="reward margin",
    tag="rewards/margin",
    training="reward_margin",
    validation="reward_margin",
    short="margin",
    format=".3f",
)
REWARD_CHOSEN = Metric(
    key="rewards/chosen",
    label="chosen reward",
    tag="rewards/chosen",
    training="reward_chosen",
    validation="reward_chosen",
    curve="chosen",
)
REWARD_REJECTED = Metric(
    key="rewards/rejected",
    label="rejected reward",
    tag="rewards/rejected",
    training="reward_rejected",
    validation="reward_rejected",
    curve="rejected",
)
LOGPS_CHOSEN = Metric(
    key="logps/chosen", label="chosen log-probability", tag="tokens/log_probability_chosen", curve="chosen"
)
LOGPS_REJECTED = Metric(
    key="logps/rejected", label="rejected log-probability", tag="tokens/log_probability_rejected", curve="rejected"
)
LEARNING_RATE = Metric(
    key="learning_rate",
    label="learning rate",
    tag="optimizer/learning_rate",
    validated=False,
    training="learning_rate",
    short="lr",
    format=".2e",
)
GRADIENT_NORM = Metric(
    key="grad_norm",
    label="gradient norm",
    tag="optimizer/gradient_norm",
    validated=False,
    training="grad_norm",
    short="grad norm",
    curve="before clipping",
)
ENTROPY = Metric(key="entropy", label="entropy", tag="tokens/entropy")
TOKEN_ACCURACY = Metric(key="mean_token_accuracy", label="token accuracy", tag="tokens/accuracy")

METRICS = (
    LOSS,
    REWARD_ACCURACY,
    REWARD_MARGIN,
    REWARD_CHOSEN,
    REWARD_REJECTED,
    LOGPS_CHOSEN,
    LOGPS_REJECTED,
    LEARNING_RATE,
    GRADIENT_NORM,
    ENTROPY,
    TOKEN_ACCURACY,
)
"""All metrics, the most telling ones first."""


@dataclass(frozen=True)
class Chart:
    """Metrics that are drawn together, by step."""

    title: str
    metrics: tuple[Metric, ...]
    logarithmic: bool = False
    """Whether the axis is logarithmic when the values span more than a decade."""
    zero: bool = False
    """Whether the axis always shows 0."""
    noisy: bool = True
    """Whether long curves are smoothed."""


CHARTS = (
    Chart("Loss", (LOSS,)),
    Chart("Rewards", (REWARD_CHOSEN, REWARD_REJECTED), zero=True),
    Chart("Reward margin", (REWARD_MARGIN,), zero=True),
    Chart("Reward accuracy", (REWARD_ACCURACY,)),
    Chart("Log-probabilities", (LOGPS_CHOSEN, LOGPS_REJECTED)),
    Chart("Gradient norm", (GRADIENT_NORM,), logarithmic=True),
    Chart("Learning rate", (LEARNING_RATE,), zero=True, noisy=False),
    Chart("Entropy", (ENTROPY,)),
)
"""The charts of the report and of TensorBoard, in the order in which a person looks at them."""
