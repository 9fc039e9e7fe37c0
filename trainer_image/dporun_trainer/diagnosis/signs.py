"""How each warning sign of the specification shows in the curves of a run. Pure, and cheap enough for every log.

The training loss is a mean over few pairs and very noisy, so the rules look at means of many logs and compare them
with the loss of the untrained model (``Measurements.start``): a batch whose loss is three times that of its
neighbours is ordinary once most pairs are learnt, a model that is worse than before training is not. The validation
loss is always measured on the same pairs, so small changes of it count. Every sign must persist (several logs, two
validations), so a diagnosis of a running training does not flicker.

What is *not* a sign: the training loss dropping in steps at the start of an epoch (the model has seen the pairs
before), and the log-probability of chosen responses falling while the margin rises (ordinary for DPO).
"""

import itertools
import math
from collections.abc import Sequence

from dporun_api.metrics import (
    GRADIENT_NORM,
    LOGPS_CHOSEN,
    LOGPS_REJECTED,
    LOSS,
    REWARD_ACCURACY,
    REWARD_CHOSEN,
    REWARD_MARGIN,
    REWARD_REJECTED,
    Split,
)
from dporun_trainer.diagnosis.measurements import END, LEVEL, Measurements
from dporun_trainer.run_folder.curves import Series, mean, quantile

Evidence = str | None
"""Steps and values that show a sign; None when they do not."""

RECENT = 200
"""Logs that count as the present; a whole run with the default logging interval has about 100."""

EVAL_RISE = 0.05
"""Share by which a validation loss must rise above its minimum: checkpoints of a run scatter by one or two percent."""
EVAL_RISE_ONCE = 0.10
"""The same when only the last validation shows it."""
WIDE_GAP = 0.3
"""Gap between training and validation loss that is too wide, in units of the untrained loss (0.2 if that is ln 2)."""
GROWN_GAP = 0.15
"""Growth of that gap over three validations that is too much, in the same unit."""

HIGH_LOSS = 0.95
"""A loss above this share of the untrained loss has hardly moved (0.66 where that is ln 2 = 0.69)."""
FLAT_LOSS = 0.99
"""A loss above this share of the untrained loss has not moved at all."""
LEARNT_MARGIN = 1.0
"""A reward margin that proves learning, whatever the loss is: below it the specification sees need for improvement."""
PATIENCE = 0.5
"""Share of the planned epochs that must pass before a high loss counts: warm-up and the first steps are always flat."""

CONFUSED_MARGIN = -0.1
"""A confused model's reward margin is below this; around 0 a model has learnt nothing, or nothing that generalises."""
CONFUSED_ACCURACY = 0.4
"""Its validation accuracy is below this as well; bad luck alone does that to one run in twenty (of 60 pairs)."""
CONFUSED_AT_ONCE = -0.5
"""A margin below this needs no second validation."""

SPIKE = 2.0
"""A spike is above this multiple of the untrained loss, or more for logs of few pairs (see ``Measurements.noise``)."""
SPIKE_SPREAD = 4.0
"""It also exceeds the median of the logs before it by this many times their upper spread (90th percentile - median).
The standard deviation would not do: losses of mostly learnt pairs have heavy tails."""
PEAKS = 3
"""Spikes, of loss or gradients, that make a sign; fewer are accidents of the data."""
BEFORE_SPIKE = 20
"""Logs before a spike that it is compared with."""
CLIMBED = 1.25
"""A loss level above this multiple of the untrained loss shows that training made the model worse."""
SWING = 0.5
"""Least height of a swing of the smoothed training loss, in units of the untrained loss."""
SWING_NOISE = 6.0
"""The same in standard errors of the smoothed loss; a swing must reach both."""
EVAL_SWING = 0.25
"""Least height of a swing of the validation loss, which has no such noise, in units of the untrained loss."""
SWINGS = 4
"""Swings that make an oscillation: two up and two down."""

EXPLODING = 10.0
"""An exploding gradient norm is this many times the early norms, and the 90th percentile of all recent ones. The early
norms alone prove little: in healthy runs, too, norms grow tenfold as LoRA's B leaves zero and wrong pairs dominate."""
NON_FINITE_GRADIENTS = 3
"""Non-finite gradient norms among the last LEVEL logs that make a sign; at the start fp16 has a few while it searches
its loss scale."""
VANISHED = 1e-5
"""A gradient norm below this has vanished: for a million parameters, each gradient is near AdamW's epsilon of 1e-8."""
VANISHED_SHARE = 1e-3
"""So has a norm below this share of the early norm."""

_FINITE = (LOSS, REWARD_CHOSEN, REWARD_REJECTED, REWARD_MARGIN, LOGPS_CHOSEN, LOGPS_REJECTED)
"""Metrics that are numbers in every log of a healthy training."""


def non_finite(run: Measurements) -> Evidence:
    """NaN values: in any loss or reward at once, in gradients when they persist."""
    for metric, split in itertools.product(_FINITE, Split):
        series = run.curves.get(metric, split)
        bad = [step for step, value in zip(series.steps, series.values, strict=True) if not math.isfinite(value)]
        if bad:
            often = f", {len(bad)} times so far" if len(bad) > 1 else ""
            return f"{metric.log_key(split)} is not a finite number at {run.at(bad[0])}{often}"
    gradients = run.curves.get(GRADIENT_NORM, Split.TRAINING)
    bad = [step for step, value in zip(gradients.steps, gradients.values, strict=True) if not math.isfinite(value)]
    recent = [step for step in bad if step >= gradients.steps[-LEVEL:][0]]
    if len(gradients) >= 2 * LEVEL and len(recent) >= NON_FINITE_GRADIENTS:
        return f"grad_norm is not finite in {len(recent)} of the last {LEVEL} logs, first at {run.at(bad[0])}"
    return None


def exploding(run: Measurements) -> Evidence:
    """Gradients exploding: peaks far above early and usual norms, or a high level while the loss is no better."""
    gradients = run.gradients
    if len(gradients) < 2 * LEVEL:
        return None
    early = quantile(gradients.values[:LEVEL], 0.5)
    recent = gradients.last(RECENT)
    usual = quantile(recent.values, 0.9)
    large = recent.where([value > EXPLODING * early > 0 for value in recent.values])
    peaks = large.where([value > EXPLODING * usual for value in large.values])
    lasting = len(large.between(recent.steps[-LEVEL] - 1, END)) > LEVEL // 2 and run.level > run.start
    if len(peaks) < PEAKS and not lasting:
        return None
    top = max(large.values)
    step = large.steps[large.values.index(top)]
    return (
        f"the norm rose from {_f(early)} at the start to {_f(top)} at {run.at(step)}; {len(large)} logs are above ten "
        "times the norm at the start"
    )


def spiking(run: Measurements) -> Evidence:
    """Loss spiking: several logs far above those before them and above the untrained loss."""
    spikes = _spikes(run)
    if len(spikes) < PEAKS:
        return None
    last = spikes.last(PEAKS)
    shown = ", ".join(f"{_f(value)} at step {step}" for step, value in zip(last.steps, last.values, strict=True))
    return f"training loss jumped {len(spikes)} times, most recently to {shown}; {_untrained(run)}"


def climbed(run: Measurements) -> Evidence:
    """Loss climbing above that of the untrained model and staying there for a while."""
    recent, width, limit = run.train.last(RECENT), 2 * LEVEL, (1 + (CLIMBED - 1) * run.noise) * run.start
    worst: tuple[float, int] | None = None
    for start in range(max(len(recent) - width, 0) + 1):
        window = recent.values[start : start + width]
        if len(window) >= LEVEL and quantile(window, 0.5) > run.start and mean(window) > limit:
            worst = max(worst or (0.0, 0), (mean(window), start))
    if worst is None:
        return None
    level, start = worst
    first, last = recent.steps[start], recent.steps[min(start + width, len(recent)) - 1]
    return f"training loss was {_f(level)} on average from step {first} to {last}; {_untrained(run)}"


def oscillating(run: Measurements) -> Evidence:
    """Loss oscillating: wide swings of the smoothed training loss, or of the validation loss."""
    values, width = run.train.values[-RECENT:], LEVEL // 2
    blocks = [values[index : index + width] for index in range(0, len(values) - width + 1, width)]
    if blocks:
        levels = [mean(block) for block in blocks]
        squares = [(value - level) ** 2 for block, level in zip(blocks, levels, strict=True) for value in block]
        noise = math.sqrt(math.fsum(squares) / (len(blocks) * (width - 1)) / width)
        turns = _turns(levels, max(SWING * run.noise * run.start, SWING_NOISE * noise))
        if len(turns) > SWINGS:
            return f"training loss swings {_path(turns)} within the last {len(values)} logs"
    turns = _turns(run.validation.values[-RECENT:], EVAL_SWING * run.start)
    return f"validation loss swings {_path(turns)}" if len(turns) > SWINGS else None


def confused(run: Measurements) -> Evidence:
    """Rewards: chosen < rejected, in two validations (or the only one), or all along in training."""
    margins = _margins(run, Split.VALIDATION).between(0, END)
    accuracies = run.curves.get(REWARD_ACCURACY, Split.VALIDATION)
    accuracy = dict(zip(accuracies.steps, accuracies.values, strict=True))
    newest = margins.last(2)
    if len(newest) == 2 or (newest and (run.finished or newest.values[0] < CONFUSED_AT_ONCE)):
        wrong = (
            value < CONFUSED_MARGIN and accuracy.get(step, 0.0) < CONFUSED_ACCURACY
            for step, value in zip(newest.steps, newest.values, strict=True)
        )
        if all(wrong):
            step, value = newest.steps[-1], newest.values[-1]
            share = f" and accuracy {accuracy[step]:.2f}" if step in accuracy else ""
            return f"margin {_f(value)}{share} on the validation data at {run.at(step)}"
    training = _margins(run, Split.TRAINING).last(2 * LEVEL)
    halves = training.values[:LEVEL], training.values[LEVEL:]
    if len(training) == 2 * LEVEL and all(mean(half) < CONFUSED_MARGIN for half in halves):
        return f"margin {_f(mean(training.values))} on the training data since step {training.steps[0]}"
    return None


def eval_rising(run: Measurements) -> Evidence:
    """Validation loss increasing while training loss does not."""
    best = run.validation.best()
    if best is None:
        return None
    step, lowest = best
    after = run.validation.between(step, END)
    persists = len(after) >= 2 and min(after.values[-2:]) > (1 + EVAL_RISE) * lowest
    at_the_end = run.finished and len(after) == 1 and after.values[0] > (1 + EVAL_RISE_ONCE) * lowest
    if not (persists or at_the_end):
        return None
    before = run.train.between(-1, step).values[-LEVEL:]
    if before and run.level > max(mean(before), lowest):
        return None  # the training loss rises as well, so the model does not memorise
    fell = f", while training loss went from {_f(mean(before))} to {_f(run.level)}" if before else ""
    risen = f"{_f(after.values[-1])} at {run.at(after.steps[-1])}"
    return f"it rose from its minimum, {_f(lowest)} at {run.at(step)}, to {risen}{fell}"


def far_below(run: Measurements) -> Evidence:
    """Training loss much lower than a validation loss that stays high or no longer improves, in two validations."""
    gaps = run.gaps.last(2)
    if len(gaps) < 2 and not (gaps and run.finished):
        return None
    if run.eval_improves(within=1) and run.validation.values[-1] < HIGH_LOSS * run.start:
        return None
    held_out = dict(zip(run.validation.steps, run.validation.values, strict=True))
    for step, gap in zip(gaps.steps, gaps.values, strict=True):
        if gap <= WIDE_GAP * run.start or held_out[step] - gap > held_out[step] / 2:
            return None
    step, gap = gaps.steps[-1], gaps.values[-1]
    return f"{_f(held_out[step] - gap)} in training, {_f(held_out[step])} on the validation data at {run.at(step)}"


def gap_growing(run: Measurements) -> Evidence:
    """Gap between training and validation loss growing, validation after validation, without improvement."""
    gaps = run.gaps.last(3)
    if len(gaps) < 3 or run.eval_improves(within=2) or not gaps.values[0] < gaps.values[1] < gaps.values[2]:
        return None
    if gaps.values[2] - max(gaps.values[0], 0) <= GROWN_GAP * run.start:
        return None
    return f"{_path(gaps.values)} over the last three validations, up to {run.at(gaps.steps[-1])}"


def vanishing(run: Measurements) -> Evidence:
    """Gradients vanishing while the loss is still high."""
    gradients = run.gradients
    if len(gradients) < 2 * LEVEL or not run.train or run.level <= HIGH_LOSS * run.start:
        return None
    early, now = quantile(gradients.values[:LEVEL], 0.5), quantile(gradients.values[-LEVEL:], 0.9)
    if now >= max(VANISHED, VANISHED_SHARE * early):
        return None
    where = run.at(gradients.steps[-1])
    return f"the norm fell from {_f(early)} to {_f(now)} at {where}, while the training loss was {_f(run.level)}"


def both_high(run: Measurements) -> Evidence:
    """Both losses high and flat: no better than the untrained model after half of the run."""
    train, validation = run.train, run.validation
    margins = _margins(run, Split.VALIDATION).values or _margins(run, Split.TRAINING).values
    if len(train) < LEVEL // 2 or run.progress < PATIENCE or (margins and margins[-1] >= LEARNT_MARGIN):
        return None
    high, before = HIGH_LOSS * run.start, train.values[-2 * LEVEL : -LEVEL]
    if before and mean(before) - run.level > (1 - FLAT_LOSS) * run.start and not run.finished:
        return None  # it has begun to fall
    if min([run.level, quantile(train.values[-2 * LEVEL :], 0.5), *validation.values]) < high:
        return None
    held_out = f" and validation loss {_f(validation.values[-1])}" if validation else ""
    where = run.at(train.steps[-1])
    return f"training loss is {_f(run.level)}{held_out} at {where}; {_untrained(run)}"


def losses(run: Measurements) -> Evidence:
    """How far the losses have come."""
    if not run.train:
        return None
    best = run.validation.best()
    held_out = f"; the lowest validation loss is {_f(best[1])}, at {run.at(best[0])}" if best else ""
    return f"Training loss went from {_f(run.train.values[0])} to {_f(run.level)}{held_out}."


def rewards(run: Measurements) -> Evidence:
    """Rewards: chosen > rejected, the good sign."""
    for split in (Split.VALIDATION, Split.TRAINING):
        margins = _margins(run, split).values
        if margins:
            accuracies = run.curves.get(REWARD_ACCURACY, split).finite().values
            accuracy = f", accuracy {accuracies[-1]:.2f}" if accuracies else ""
            good = f"Chosen responses have the higher rewards on the {split} data: margin {_f(margins[-1])}{accuracy}."
            return good if margins[-1] > 0 else None
    return None


def falling_log_probability(run: Measurements) -> Evidence:
    """Log-probability of chosen responses falling while the margin rises: for information, not a warning."""
    for split, count in ((Split.VALIDATION, 1), (Split.TRAINING, LEVEL)):
        chosen = run.curves.get(LOGPS_CHOSEN, split).finite().values
        margins = _margins(run, split).values
        if min(len(chosen), len(margins)) < 2 * count:
            continue
        before, after = mean(chosen[:count]), mean(chosen[-count:])
        if after < before and mean(margins[-count:]) > mean(margins[:count]):
            return (
                f"For information: the log-probability of chosen responses fell from {_f(before)} to {_f(after)} while "
                "the margin rose. DPO often lowers the probability of both responses; only the difference counts."
            )
        return None
    return None


def onset(run: Measurements) -> int | None:
    """Step of the first non-finite loss or first spike."""
    loss = run.curves.get(LOSS, Split.TRAINING)
    bad = [step for step, value in zip(loss.steps, loss.values, strict=True) if not math.isfinite(value)]
    return min([*bad[:1], *_spikes(run).steps[:1]], default=None)


def _spikes(run: Measurements) -> Series:
    train = run.train.last(RECENT + BEFORE_SPIKE)
    flags = [False] * len(train)
    for index in range(LEVEL // 2, len(train)):
        before = train.values[max(0, index - BEFORE_SPIKE) : index]
        median = quantile(before, 0.5)
        usual = median + SPIKE_SPREAD * (quantile(before, 0.9) - median)
        flags[index] = train.values[index] > max(SPIKE * run.noise * run.start, usual)
    return train.where(flags)


def _margins(run: Measurements, split: Split) -> Series:
    """Reward margins as logged, or chosen minus rejected where they are not; finite values."""
    margins = run.curves.get(REWARD_MARGIN, split)
    if margins:
        return margins.finite()
    chosen, rejected = run.curves.get(REWARD_CHOSEN, split), run.curves.get(REWARD_REJECTED, split)
    if chosen.steps != rejected.steps:
        return Series()
    return Series(
        chosen.steps, tuple(high - low for high, low in zip(chosen.values, rejected.values, strict=True))
    ).finite()


def _turns(values: Sequence[float], swing: float) -> list[float]:
    """Alternating lows and highs of a curve that lie at least ``swing`` apart, its ends included."""
    turns = list(values[:1])
    direction = 0
    for value in values[1:]:
        if direction and (value - turns[-1]) * direction > 0:
            turns[-1] = value
        elif abs(value - turns[-1]) >= swing:
            direction = 1 if value > turns[-1] else -1
            turns.append(value)
    return turns


def _untrained(run: Measurements) -> str:
    return f"the untrained model's loss is {_f(run.start)}"


def _path(values: Sequence[float]) -> str:
    return " → ".join(_f(value) for value in values)


def _f(value: float) -> str:
    return f"{value:.3g}"
