"""The loss of the untrained model, by which the diagnosis measures every other loss of a run. Pure."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from dporun_api.metrics import LOSS, REWARD_CHOSEN, REWARD_MARGIN, REWARD_REJECTED, Split
from dporun_trainer.diagnosis.remedies import RunValues
from dporun_trainer.objective import softplus, untrained_loss
from dporun_trainer.run_folder.curves import Curves, Series

LN2 = math.log(2)
"""The sigmoid loss at the start, whatever the label smoothing: both rewards are 0, and -log sigmoid(0) is ln 2."""
UNMOVED = 0.1
"""Mean rewards below this are those of a model which has hardly moved; its sigmoid loss differs from ln 2 by 0.05."""
NEAR = 0.05
"""Largest distance from -log sigmoid(margin) at which a logged loss is taken to be the sigmoid loss. Other losses start
at 1 (hinge, apo) or 1.39 (nca, bco) or higher."""
FAR = 0.15
"""The same where no rewards are near 0: pairs differ then."""
LEARNT = 2.0
"""Margins above this tell nothing: every loss is near 0 there."""


@dataclass(frozen=True)
class Untrained:
    """The loss of the untrained model."""

    loss: float
    certain: bool
    """Whether it is known. Otherwise it is the first loss that was logged, which noise and first steps have changed."""


def untrained(curves: Curves, settings: RunValues) -> Untrained:
    """Find the loss of the untrained model: from the objective, from a validation at step 0, or from the first logs.

    A run that starts from an earlier one's adapter is better than that; step 0 tells how much (``Measurements.start``).
    A run of another program often does not tell its objective. It is the sigmoid loss if losses are near ln 2 where
    rewards are near 0. Where none are, all logs tell: the mean of a convex function is never below the function of
    the mean, so the sigmoid loss is never below -log sigmoid(margin), and not far above it where margins agree.
    """
    known = _of_objective(settings)
    if known is not None:
        return Untrained(known, certain=True)
    first_validation = curves.get(LOSS, Split.VALIDATION).finite()
    if first_validation.steps[:1] == (0,):
        return Untrained(first_validation.values[0], certain=True)
    train = curves.get(LOSS, Split.TRAINING).finite()
    if not train:
        begun = first_validation.values[0] if first_validation else LN2
        return Untrained(LN2, certain=settings.loss is None and abs(begun - LN2) < NEAR)
    if settings.loss is None and _is_sigmoid(curves, train):
        return Untrained(LN2, certain=True)
    first = next((loss for loss in train.values if loss > 0), LN2)  # 0 measures nothing
    return Untrained(first, certain=False)


def _of_objective(settings: RunValues) -> float | None:
    """Compute it where the objective is known; TRL's defaults stand for what is not."""
    if settings.loss is None:
        return None
    weights = settings.loss_weights
    if weights is not None and len(weights) != len(settings.loss):
        return None
    if settings.beta is None and set(settings.loss) & _WITH_BETA:
        return None
    return untrained_loss(settings.loss, weights, settings.beta or 0.1, settings.label_smoothing or 0.0)


_WITH_BETA = {"ipo", "sppo_hard"}
"""Losses that depend on beta where both rewards are 0."""


def _is_sigmoid(curves: Curves, train: Series) -> bool:
    logs = [log for split in Split for log in _logs(curves, split)]
    if not logs:
        return abs(train.values[0] - LN2) < NEAR
    unmoved = [abs(distance) for distance, _, moved in logs if moved < UNMOVED]
    if unmoved:
        return min(unmoved) < NEAR
    telling = [abs(distance) for distance, margin, _ in logs if abs(margin) < LEARNT]
    near = min(telling) < FAR if telling else train.values[0] < LN2
    return near and min(distance for distance, _, _ in logs) > -NEAR


def _logs(curves: Curves, split: Split) -> Iterator[tuple[float, float, float]]:
    """Of each log with rewards, how far its loss is above -log sigmoid(margin), the margin, and its largest reward."""
    losses = curves.get(LOSS, split).finite()
    rewards = [
        dict(zip(series.steps, series.values, strict=True))
        for series in (curves.get(metric, split).finite() for metric in (REWARD_MARGIN, REWARD_CHOSEN, REWARD_REJECTED))
    ]
    for step, loss in zip(losses.steps, losses.values, strict=True):
        if step in rewards[0]:
            margin = rewards[0][step]
            yield loss - softplus(-margin), margin, max(abs(reward.get(step, 0.0)) for reward in rewards)
