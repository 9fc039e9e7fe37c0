"""Signs of underfitting: the losses stay where they were before training."""

from dporun_api.metrics import Split
from dporun_trainer.diagnosis.measurements import LEVEL, NO_BETTER, SURE, Measurements, by_step, show, window
from dporun_trainer.diagnosis.signs import Evidence
from dporun_trainer.diagnosis.verdict import POOR_MARGIN
from dporun_trainer.run_folder.curves import mean, quantile

HIGH = 0.95
"""A loss above this share of the untrained loss has hardly moved (0.66 where that is ln 2 = 0.69). While a run goes on,
NO_BETTER counts instead: a loss that has moved at all may fall yet."""
LEFT = 0.9
"""A level of the training loss below this share of it had moved."""
FLAT = 0.99
"""A training loss above this share of it has not moved at all."""
PATIENCE = 0.5
"""Share of the plan that must pass before a high loss counts: warm-up and the first steps are always flat."""
FALLING = 0.01
"""A training loss that fell by this share of the untrained loss within its newest logs has begun to fall."""
VANISHED = 1e-5
"""A gradient norm below this has vanished: for a million parameters, each gradient is near AdamW's epsilon of 1e-8."""
VANISHED_SHARE = 1e-3
"""So has a norm below this share of the first ones."""


def vanishing(run: Measurements) -> Evidence:
    """Gradients vanishing while the loss is still high."""
    gradients = run.gradients
    if len(gradients) < 2 * LEVEL or not run.train or run.level <= HIGH * run.untrained:
        return None
    first, now = quantile(gradients.values[:LEVEL], 0.5), quantile(gradients.values[-LEVEL:], 0.9)
    if now >= max(VANISHED, VANISHED_SHARE * first):
        return None
    begun, end = gradients.steps[gradients.values.index(first)], gradients.last(LEVEL)
    ended = end.steps[end.values.index(now)]
    return (
        f"the norm fell from {run.value(first, begun)} to {run.value(now, ended)}, while training loss was "
        f"{run.average(run.newest)}"
    )


def both_high(now: Measurements) -> Evidence:
    """Both losses high and flat: no better than the untrained model after half of the run."""
    run = now.settled
    margins = run.margins(Split.VALIDATION).values or run.margins(Split.TRAINING).values
    if not run.train or run.progress < PATIENCE or (margins and margins[-1] >= POOR_MARGIN):
        return None
    if not run.validation and (len(run.train) < LEVEL // 2 or _left(run)):
        return None
    if _may_still_learn(now):
        return None
    high = (HIGH if now.finished else NO_BETTER) * run.untrained
    if min([run.level, quantile(run.train.values[-2 * LEVEL :], 0.5), *run.validation.values]) < high:
        return None
    held_out = (
        f" and validation loss {run.value(run.validation.values[-1], run.validation.steps[-1])}"
        if run.validation
        else ""
    )
    return f"training loss is {run.average(run.newest)}{held_out}; {run.yardstick}"


def no_better(now: Measurements) -> Evidence:
    """Validation no better than the untrained model after half of the run, whatever the training loss does."""
    run = now.settled
    recent = run.validation.last(1 if now.finished else 2)
    if both_high(now):
        return None  # which says it already
    if not recent or run.progress < PATIENCE or (len(recent) < 2 and not now.finished):
        return None
    margins = by_step(run.margins(Split.VALIDATION))
    if any(not run.no_better(step) for step in recent.steps):
        return None
    if _may_still_learn(now):
        return None
    step, value = recent.steps[-1], recent.values[-1]
    margin = f", with a margin of {show(margins[step])}" if step in margins else ""
    return f"it is {run.value(value, step)}{margin}; {run.yardstick}"


def _left(run: Measurements) -> bool:
    """Whether the training loss was clearly lower at some time: a model that has learnt nothing has even losses."""
    width = window(len(run.train))
    levels = (run.train.part(start, start + width).values for start in range(len(run.train) - width + 1))
    return any(mean(values) < LEFT * run.untrained for values in levels)


def _may_still_learn(now: Measurements) -> bool:
    """Whether a run that goes on has begun to learn, or has not had its full learning rate yet."""
    if now.finished:
        return False
    run, rates = now.settled, now.learning_rates.values
    values = run.train.values
    width = max(1, min(LEVEL, len(values) // 3))
    if len(values) < 2 or (len(rates) > 1 and rates[-1] > rates[-2]):
        return True
    lower = FALLING * run.untrained
    since = run.level - now.level > max(lower, SURE * now.error(len(now.newest)))
    return since or mean(values[-2 * width : -width]) - mean(values[-width:]) > lower
