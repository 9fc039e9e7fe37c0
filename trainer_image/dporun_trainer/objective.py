"""The objective of a run over a set of pairs, and what it is before training: TRL's losses, in plain numbers. Pure.

TRL computes its losses over the rows of a batch, which is what training needs. Over a whole set, however it is divided
into batches and processes, they are computed here; a test compares each of them with TRL's own.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple


class ScoredPair(NamedTuple):
    """What the losses need to know of a pair: log-probabilities of its responses, summed over their tokens."""

    chosen: float
    """Of the chosen response, by the policy: the model that is trained."""
    rejected: float
    ref_chosen: float
    """Of the chosen response, by the reference: the base model."""
    ref_rejected: float
    chosen_tokens: int
    rejected_tokens: int

    @property
    def chosen_ratio(self) -> float:
        """Log-ratio of policy and reference for the chosen response; times beta, its reward."""
        return self.chosen - self.ref_chosen

    @property
    def rejected_ratio(self) -> float:
        """Log-ratio of policy and reference for the rejected response."""
        return self.rejected - self.ref_rejected


@dataclass(frozen=True)
class Objective:
    """What training minimises, in the words of TRL's DPOConfig: the weighted sum of some losses."""

    loss_type: Sequence[str]
    loss_weights: Sequence[float]
    beta: float
    label_smoothing: float

    def loss(self, pairs: Sequence[ScoredPair]) -> float:
        """Compute the loss of one or more pairs; NaN or infinite when one of them is.

        A loss of single pairs is averaged over the pairs. Three losses are not of single pairs, and are computed over
        all pairs as TRL computes them over a batch: ``sft`` is averaged over the tokens of all chosen responses, and
        ``aot`` and ``aot_unpaired`` compare the sorted log-ratios of all pairs.
        """
        losses = zip(self.loss_type, self.loss_weights, strict=True)
        return sum(weight * self._one(loss, pairs) for loss, weight in losses)

    def _one(self, loss: str, pairs: Sequence[ScoredPair]) -> float:
        if loss == "sft":
            return -total(pair.chosen for pair in pairs) / sum(pair.chosen_tokens for pair in pairs)
        if loss == "aot":
            deltas = _sorted_differences(
                [pair.chosen - pair.rejected for pair in pairs], [pair.ref_chosen - pair.ref_rejected for pair in pairs]
            )
            return mean(self._smoothed(delta) for delta in deltas)
        if loss == "aot_unpaired":
            deltas = _sorted_differences([pair.chosen_ratio for pair in pairs], [pair.rejected_ratio for pair in pairs])
            return mean(self._smoothed(delta) for delta in deltas)
        return mean(_LOSSES[loss](self, pair) for pair in pairs)

    def _smoothed(self, delta: float) -> float:
        """Loss of a difference of log-ratios when a share of the labels is taken to be flipped."""
        x, flipped = self.beta * delta, self.label_smoothing
        return (1 - flipped) * softplus(-x) + flipped * softplus(x)


def untrained_loss(
    loss_type: Sequence[str], loss_weights: Sequence[float] | None, beta: float, label_smoothing: float
) -> float | None:
    """Compute the loss of a policy that is still the reference: every log-ratio is 0, whatever the pair.

    Args:
        loss_type: loss types of TRL's DPOTrainer.
        loss_weights: one for each of them; all 1 when None.
        beta: of the objective.
        label_smoothing: of the objective.

    Returns:
        None where the loss depends on model and data (sft), and for losses that are not known here.

    """
    weights = tuple(loss_weights) if loss_weights is not None else (1.0,) * len(loss_type)
    weighted = [(loss, weight) for loss, weight in zip(loss_type, weights, strict=True) if weight != 0]
    known = _LOSSES.keys() | {"aot", "aot_unpaired"}
    if not all(loss in known for loss, _ in weighted) or ("exo_pair" in loss_type and label_smoothing == 0):
        return None
    objective = Objective([loss for loss, _ in weighted], [weight for _, weight in weighted], beta, label_smoothing)
    return objective.loss([ScoredPair(0.0, 0.0, 0.0, 0.0, 1, 1)])


# Each is a function of an objective and a pair. Their papers: https://huggingface.co/docs/trl/dpo_trainer#loss-functions


def _sigmoid(run: Objective, pair: ScoredPair) -> float:
    return softplus(-_margin(run, pair))


def _hinge(run: Objective, pair: ScoredPair) -> float:
    return _relu(1 - _margin(run, pair))


def _ipo(run: Objective, pair: ScoredPair) -> float:
    return (_margin_per_token(pair) - 1 / (2 * run.beta)) ** 2


def _exo_pair(run: Objective, pair: ScoredPair) -> float:
    x, flipped = _margin(run, pair), run.label_smoothing
    chosen = _logistic(x) * (-softplus(-x) - math.log1p(-flipped))
    return chosen + _logistic(-x) * (-softplus(x) - math.log(flipped))


def _nca_pair(run: Objective, pair: ScoredPair) -> float:
    chosen, rejected = _rewards(run, pair)
    return softplus(-chosen) + 0.5 * softplus(chosen) + 0.5 * softplus(rejected)


def _robust(run: Objective, pair: ScoredPair) -> float:
    x, flipped = _margin(run, pair), run.label_smoothing
    return ((1 - flipped) * softplus(-x) - flipped * softplus(x)) / (1 - 2 * flipped)


def _bco_pair(run: Objective, pair: ScoredPair) -> float:
    chosen, rejected = _rewards(run, pair)
    return softplus(-chosen) + softplus(rejected)


def _sppo_hard(run: Objective, pair: ScoredPair) -> float:
    goal = 0.5 / run.beta
    return (pair.chosen_ratio - goal) ** 2 + (pair.rejected_ratio + goal) ** 2


def _apo_zero(run: Objective, pair: ScoredPair) -> float:
    chosen, rejected = _rewards(run, pair)
    return 1 - _logistic(chosen) + _logistic(rejected)


def _apo_down(run: Objective, pair: ScoredPair) -> float:
    chosen, rejected = _rewards(run, pair)
    return _logistic(chosen) + 1 - _logistic(chosen - rejected)


def _discopop(run: Objective, pair: ScoredPair) -> float:
    x = _margin(run, pair)
    exponential = _logistic(x / DISCOPOP_TAU)
    return softplus(-x) * (1 - exponential) + _exp(-x) * exponential


def _sigmoid_norm(run: Objective, pair: ScoredPair) -> float:
    return softplus(-run.beta * _margin_per_token(pair))


DISCOPOP_TAU = 0.05
"""TRL's default of discopop_tau."""

_LOSSES: dict[str, Callable[[Objective, ScoredPair], float]] = {
    "sigmoid": _sigmoid,
    "hinge": _hinge,
    "ipo": _ipo,
    "exo_pair": _exo_pair,
    "nca_pair": _nca_pair,
    "robust": _robust,
    "bco_pair": _bco_pair,
    "sppo_hard": _sppo_hard,
    "apo_zero": _apo_zero,
    "apo_down": _apo_down,
    "discopop": _discopop,
    "sigmoid_norm": _sigmoid_norm,
}
"""The losses of single pairs."""


def _rewards(run: Objective, pair: ScoredPair) -> tuple[float, float]:
    return run.beta * pair.chosen_ratio, run.beta * pair.rejected_ratio


def _margin(run: Objective, pair: ScoredPair) -> float:
    return run.beta * (pair.chosen_ratio - pair.rejected_ratio)


def _margin_per_token(pair: ScoredPair) -> float:
    return pair.chosen_ratio / max(pair.chosen_tokens, 1) - pair.rejected_ratio / max(pair.rejected_tokens, 1)


def total(values: Iterable[float]) -> float:
    """Sum without rounding, so that no order of the values matters; NaN or infinite when one of them is."""
    listed = list(values)
    return math.fsum(listed) if all(map(math.isfinite, listed)) else sum(listed)


def mean(values: Iterable[float]) -> float:
    """Average one or more values, without rounding before the division."""
    listed = list(values)
    return total(listed) / len(listed)


def _sorted_differences(some: list[float], others: list[float]) -> list[float]:
    if any(math.isnan(value) for value in (*some, *others)):  # NaN has no place in an order
        return [math.nan]
    return [one - other for one, other in zip(sorted(some), sorted(others), strict=True)]


# Elementary functions for every number, NaN and the infinities as well: Python's own raise an error at some of them.


def softplus(x: float) -> float:
    """-log sigmoid(-x), without overflow."""
    return math.nan if math.isnan(x) else max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def _relu(x: float) -> float:
    return math.nan if math.isnan(x) else max(x, 0.0)


def _logistic(x: float) -> float:
    return math.exp(-softplus(-x))


def _exp(x: float) -> float:
    return math.inf if x > 700 else math.exp(x)
