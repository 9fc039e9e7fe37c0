"""Signs of overfitting: the training loss falls, and the validation loss does not follow."""

import math

from dporun_api.metrics import Split
from dporun_trainer.diagnosis.measurements import END, SURE, Measurements, by_step
from dporun_trainer.diagnosis.signs import Evidence

RISE = 0.05
"""Share by which a validation loss must rise above its minimum: checkpoints of a run scatter by one or two percent."""
RISE_ONCE = 0.10
"""The same when only the last validation shows it."""
RISE_LEAST = 0.03
"""Least such rise, in units of the untrained loss (0.02 if that is ln 2): from 0.010 to 0.0125 means nothing."""
WIDE_GAP = 0.3
"""Gap between training and validation loss that is too wide, in the same unit (0.2)."""
GROWN_GAP = 0.15
"""Growth of that gap over three validations that is too much, in the same unit."""
GENERALISED = 0.4
"""Where a wide gap is too wide: less than this share of what training gained shows on the validation data."""
GAINED_FOR_NOTHING = 0.12
"""What training may gain at most where validation is no better than untrained, in units of the untrained loss: with
less, it has hardly fitted its own pairs."""
LEARNT = 0.9
"""A loss below this share of the untrained loss has been learnt from."""
CONFIDENT_RISE = 0.15
"""Most that the validation loss may rise, in the same unit, while accuracy and margin on the same pairs grow: the model
orders pairs no worse and is surer of all of them, also of those that are wrong."""
CONFIDENT_LOSS = 0.75
"""Such a validation loss is below this share of the untrained loss."""
SAME_ACCURACY = 0.02
"""An accuracy lower by less than this is no worse."""


def eval_rising(run: Measurements) -> Evidence:
    """Validation loss increasing while training loss does not."""
    best = run.validation.best()
    if best is None or not risen(run) or over_confident(run):
        return None
    step, lowest = best
    after = run.validation.between(step, END)
    last, trained = after.steps[-1], by_step(run.trained)
    if last in trained and not _memorises(run, step, last):
        return None
    fell = f", while training loss was {run.average(run.before(last))}" if last in trained else ""
    return f"it rose from its minimum, {run.value(lowest, step)}, to {run.value(after.values[-1], last)}{fell}"


def risen(run: Measurements) -> bool:
    """Whether the validation loss is above its minimum for good, as far as one can see."""
    best = run.validation.best()
    if best is None:
        return False
    step, lowest = best
    after = run.validation.between(step, END).values
    least = lowest + RISE_LEAST * run.untrained
    persists = len(after) >= 2 and min(after[-2:]) > max((1 + RISE) * lowest, least)
    at_the_end = run.finished and len(after) == 1 and after[0] > max((1 + RISE_ONCE) * lowest, least)
    return persists or at_the_end


def _memorises(run: Measurements, best: int, last: int) -> bool:
    """Whether the training loss did not rise with the validation loss, and is well below it."""
    trained, held_out = by_step(run.trained), by_step(run.validation)
    if best in trained and trained[last] > max(trained[best], held_out[best]):
        return False
    return held_out[last] - trained[last] > max(RISE_LEAST * run.untrained, SURE * run.error(len(run.before(last))))


def over_confident(run: Measurements) -> bool:
    """Whether the validation loss rises a little only because the model is surer: accuracy and margin do not fall."""
    best = run.validation.best()
    if best is None or not run.validation:
        return False
    step, lowest = best
    last, value = run.validation.steps[-1], run.validation.values[-1]
    accuracy, margin = run.accuracies(Split.VALIDATION), by_step(run.margins(Split.VALIDATION))
    if not {step, last} <= accuracy.keys() & margin.keys():
        return False
    return (
        value - lowest < CONFIDENT_RISE * run.untrained
        and value < CONFIDENT_LOSS * run.untrained
        and accuracy[last] > accuracy[step] - SAME_ACCURACY
        and margin[last] > margin[step]
    )


def far_below(run: Measurements) -> Evidence:
    """Training loss much lower than a validation loss that stays high or no longer improves, in two validations."""
    gaps = [(step, trained) for step, trained in zip(run.trained.steps, run.trained.values, strict=True)][-2:]
    if len(gaps) < 2 and not (gaps and run.finished):
        return None
    held_out = by_step(run.validation)
    if run.finished:
        gaps = gaps[-1:]
    if any(not _wide(run, step, held_out[step], trained) for step, trained in gaps):
        return None
    step, _ = gaps[-1]
    if run.eval_improves(within=1) and not run.no_better(step):
        return None
    return (
        f"training loss was {run.average(run.before(step))}, and validation loss {run.value(held_out[step], step)}; "
        f"{run.yardstick}"
    )


def _wide(run: Measurements, step: int, held_out: float, trained: float) -> bool:
    gap, gained = held_out - trained, run.start - trained
    if gap <= SURE * run.error(len(run.before(step))):
        return False
    if run.no_better(step):
        return gained > GAINED_FOR_NOTHING * run.untrained
    return gap > WIDE_GAP * run.untrained and run.start - held_out < GENERALISED * gained


def gap_growing(run: Measurements) -> Evidence:
    """Gap between training and validation loss growing, validation after validation, without improvement."""
    held_out = by_step(run.validation)
    gaps = [(step, held_out[step] - trained) for step, trained in by_step(run.trained).items()][-3:]
    if len(gaps) < 3 or run.eval_improves(within=2) or over_confident(run):
        return None
    first, second, third = (gap for _, gap in gaps)
    if not first < second < third or third - max(first, 0) <= GROWN_GAP * run.untrained:
        return None
    step = gaps[-1][0]
    if third < SURE * run.error(len(run.before(step))):
        return None
    if run.start - held_out[step] > GENERALISED * (run.start - held_out[step] + third):
        return None
    shown = (f"{run.value(held_out[at], at)} against {run.average(run.before(at))}" for at, _ in gaps)
    return f"validation loss was {', then '.join(shown)} in training"


def back_at_untrained(run: Measurements) -> Evidence:
    """Validation loss back at that of the untrained model, though the model has learnt, and fits its own pairs."""
    best, trained = run.validation.best(), by_step(run.trained)
    if best is None or not run.finished:
        return None
    step, value = run.validation.steps[-1], run.validation.values[-1]
    learnt = best[1] < LEARNT * run.start or run.orders(step)
    if not learnt or not run.no_better(step) or trained.get(step, math.inf) >= LEARNT * run.start:
        return None
    return f"it is {run.value(value, step)}, and training loss was {run.average(run.before(step))}; {run.yardstick}"
