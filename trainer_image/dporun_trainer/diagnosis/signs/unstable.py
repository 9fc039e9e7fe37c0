"""Signs of an unstable training: NaN, exploding gradients, and losses that spike, climb, swing or collapse."""

import itertools
import math
from collections.abc import Iterator, Sequence

from dporun_api.metrics import (
    GRADIENT_NORM,
    LOGPS_CHOSEN,
    LOGPS_REJECTED,
    LOSS,
    REWARD_CHOSEN,
    REWARD_MARGIN,
    REWARD_REJECTED,
    Metric,
    Split,
)
from dporun_trainer.diagnosis.measurements import (
    END,
    LEVEL,
    SURE,
    Measurements,
    by_step,
    non_finite,
    path,
    spread,
    window,
)
from dporun_trainer.diagnosis.signs import Evidence
from dporun_trainer.run_folder.curves import Series, mean, quantile

RECENT = 200
"""Logs that count as the present; a whole run with the default logging interval has about 100."""

NON_FINITE_GRADIENTS = 3
"""Non-finite gradient norms among the last LEVEL logs that make a sign; at the start fp16 has a few while it searches
its loss scale."""
EXPLODING = 10.0
"""An exploding gradient norm is this many times the largest of the first LEVEL, and of the usual (median) recent ones.
The first ones alone prove little: in healthy runs, too, norms grow as LoRA's B leaves zero and wrong pairs dominate."""
CLIPPED = 1.0
"""Gradients that are clipped to this norm (TRL's default) move the weights no further when they explode, so they are a
sign only where the loss has suffered."""

PEAKS = 3
"""Spikes, of loss or gradients, that make a sign; fewer are accidents of the data, and only said."""
SPIKE = 2.0
"""A spike is above this multiple of the untrained loss, and accordingly more for logs of fewer than SPIKE_PAIRS: one
pair that is confidently wrong, with a loss of 16 times the untrained one, is ordinary."""
SPIKE_PAIRS = 8
"""Pairs per log from which SPIKE applies as it is."""
SPIKE_SPREAD = 4.0
"""It also exceeds the median of the logs before it by this many times their upper spread (90th percentile - median).
The standard deviation would not do: losses of mostly learnt pairs have heavy tails."""
BUMP = 3
"""Logs in a row above the untrained loss are a spike as well: chance alone seldom gives as many."""
BUMP_HEIGHT = 1.4
"""Multiple of the untrained loss above which their mean is, then. It is as high as a climb as well, so that the
accidents of its pairs do not explain it."""
BUMP_PAIRS = 12
"""Pairs of which so many logs are at least."""
BEFORE_SPIKE = 20
"""Logs before a spike that it is compared with."""

BLOCK_PAIRS = 20
"""Pairs of which a mean of a few logs is at least, to count as a level or as one end of a swing."""
CLIMBED = 1.25
"""A level of the training loss above this multiple of the untrained loss shows that training made the model worse."""
CLIMBED_BOTH = 1.1
"""The same where training and validation loss are both above it."""
DOUBT = 2.0
"""Standard errors by which such a level must exceed that as well. The loss of single pairs has a standard deviation of
about the untrained loss in an ordinary run; where the logs show more, that counts."""

LEFT = 0.75
"""A level below this share of the untrained loss shows that the model had learnt."""
RETURNED = 0.9
"""A level above this share of it, after that, shows that what it had learnt is lost."""
THROWN = 1.25
"""A validation loss above this multiple of the untrained loss after one below half of it: a jump, not memorising, where
the training loss rises as well."""
RISEN = 0.05
"""A training loss higher by this share of the untrained loss has risen; memorising only lowers it."""

SWING = 0.5
"""Height of a wide swing, in units of the untrained loss."""
SWING_NOISE = 6.0
"""A swing of the training loss is as many standard errors high as well."""
SWINGS = 4
"""Swings that make an oscillation of the training loss: two up and two down."""
WIDE_SWINGS = 2
"""Wide swings, one up and one down, suffice in the validation loss, which has no noise."""
EVAL_SWING = 0.25
"""Height of a swing of the validation loss of which SWINGS are needed."""

_FINITE = (LOSS, REWARD_CHOSEN, REWARD_REJECTED, REWARD_MARGIN, LOGPS_CHOSEN, LOGPS_REJECTED)
"""Metrics that are numbers in every log of a healthy training."""


def no_number(run: Measurements) -> Evidence:
    """NaN values: in any loss or reward at once, until it has passed; in gradients when they persist."""
    for metric, split in itertools.product(_FINITE, Split):
        series = run.curves.get(metric, split)
        if non_finite(series) and not _passed(series, split):
            return explain_no_number(run, metric, split)
    gradients = run.curves.get(GRADIENT_NORM, Split.TRAINING)
    recent, bad = non_finite(gradients.last(LEVEL)).steps, non_finite(gradients).steps
    if len(gradients) >= 2 * LEVEL and len(recent) >= NON_FINITE_GRADIENTS:
        return f"grad_norm is not finite in {len(recent)} of the last {LEVEL} logs, first at {run.at(bad[0])}"
    return None


def passed_no_number(run: Measurements) -> Evidence:
    """Say what was no number, and has passed."""
    for metric, split in itertools.product(_FINITE, Split):
        if non_finite(run.curves.get(metric, split)):
            return explain_no_number(run, metric, split)
    return None


def explain_no_number(run: Measurements, metric: Metric, split: Split) -> str:
    """Say where a metric is no number."""
    bad = non_finite(run.curves.get(metric, split)).steps
    often = f", {len(bad)} times so far" if len(bad) > 1 else ""
    return f"{metric.log_key(split)} is not a finite number at {run.at(bad[0])}{often}"


def _passed(series: Series, split: Split) -> bool:
    """Whether few values were no numbers, and training went on well: a NaN in the weights would have stayed."""
    bad = non_finite(series).steps
    after = len(series.between(bad[-1], END))
    return len(bad) < PEAKS and after >= (LEVEL if split is Split.TRAINING else 1)


def broken_since(run: Measurements, step: int) -> bool:
    """Whether a loss or reward of ``step`` or later is not finite: what was measured before says nothing any more."""
    values = (non_finite(run.curves.get(metric, split)) for metric in _FINITE for split in Split)
    return any(series and series.steps[-1] >= step for series in values)


def exploding(run: Measurements) -> Evidence:
    """Gradients exploding: peaks far above those before them, where they can do harm or have done it."""
    first, large = exploded_gradients(run)
    clipped = run.settings.max_grad_norm is None or 0 < run.settings.max_grad_norm <= CLIPPED
    harmed = run.level - DOUBT * run.error(len(run.newest)) > RETURNED * run.untrained
    if len(large) < PEAKS or (clipped and not harmed):
        return None
    return explain_gradients(run, first, large)


def exploded_gradients(run: Measurements) -> tuple[Series, Series]:
    """The largest norm of the first LEVEL logs, and the norms after them that are EXPLODING times it."""
    begin, after = run.gradients.part(0, LEVEL), run.gradients.part(LEVEL, END).last(RECENT)
    if not after:
        return Series(), Series()
    highest = max(begin.values)
    first = begin.where([value == highest for value in begin.values])
    limit = EXPLODING * max(highest, quantile(after.values, 0.5))
    return first, after.where([value > limit > 0 for value in after.values])


def explain_gradients(run: Measurements, first: Series, large: Series) -> str:
    """Say how far the norms rose."""
    top = max(large.values)
    step = large.steps[large.values.index(top)]
    return (
        f"the norm was at most {run.value(first.values[0], first.steps[0])} in the first {LEVEL} logs, and "
        f"{run.value(top, step)}; {len(large)} logs are above ten times the former"
    )


def spiking(run: Measurements) -> Evidence:
    """Loss spiking: several logs far above those before them and above the untrained loss."""
    found = spikes(run)
    if len(found) < PEAKS:
        return None
    last = found.last(PEAKS)
    shown = ", ".join(f"{value:.3g} at step {step}" for step, value in zip(last.steps, last.values, strict=True))
    return f"training loss jumped {len(found)} times, most recently to {shown}; {run.yardstick}"


def spikes(run: Measurements) -> Series:
    """Recent training losses that are spikes: single logs, and the highest of several high ones in a row."""
    train = run.train.last(RECENT + BEFORE_SPIKE)
    limit = SPIKE * max(1.0, SPIKE_PAIRS / run.pairs) * run.untrained
    flags = [False] * len(train)
    for index in range(LEVEL // 2, len(train)):
        before = train.values[max(0, index - BEFORE_SPIKE) : index]
        median = quantile(before, 0.5)
        usual = median + SPIKE_SPREAD * (quantile(before, 0.9) - median)
        flags[index] = train.values[index] > max(limit, usual)
    for steps in _bumps(run, train):
        flags[steps[0]] = True
    return train.where(flags)


def _bumps(run: Measurements, train: Series) -> Iterator[list[int]]:
    """Places of at least BUMP logs in a row above the untrained loss, after the model had learnt; the highest first."""
    if run.pairs * BUMP < BUMP_PAIRS:
        return
    learnt = next((index for index, value in enumerate(train.values) if value < LEFT * run.untrained), len(train))
    places = range(learnt, len(train))
    for high, group in itertools.groupby(places, key=lambda index: train.values[index] > run.untrained):
        bump = list(group)
        if not high or len(bump) < BUMP:
            continue
        logs = train.part(bump[0], bump[-1] + 1)
        if mean(logs.values) > BUMP_HEIGHT * run.untrained and _high(run, logs):
            yield sorted(bump, key=lambda index: -train.values[index])


def climbed(run: Measurements) -> Evidence:
    """Loss climbing above that of the untrained model and staying there for a while."""
    recent = run.train.last(RECENT)
    for width in (2 * LEVEL, LEVEL, LEVEL // 2, LEVEL // 3):
        if run.pairs * width < BLOCK_PAIRS:
            continue
        spans = (recent.part(start, start + width) for start in range(len(recent) - width + 1))
        worst = max((span for span in spans if _high(run, span)), key=lambda span: mean(span.values), default=None)
        if worst is not None:
            return f"training loss was {run.average(worst)}; {run.yardstick}"
    return _both_climbed(run)


def _high(run: Measurements, span: Series) -> bool:
    """Whether the mean of some logs is above the untrained loss by more than the accidents of their pairs explain."""
    error = max(run.untrained / math.sqrt(run.pairs), spread(span)) / math.sqrt(len(span))
    return quantile(span.values, 0.5) > run.untrained and mean(span.values) > CLIMBED * run.untrained + DOUBT * error


def _both_climbed(run: Measurements) -> Evidence:
    needed = 1 if run.finished else 2
    high = CLIMBED_BOTH * run.untrained
    trained = by_step(run.trained)
    last = run.validation.last(needed)
    if len(last) < needed or any(value <= high for value in last.values):
        return None
    if any(trained.get(step, -math.inf) <= high for step in last.steps):
        return None
    step = last.steps[-1]
    return (
        f"training loss was {run.average(run.before(step))}, and validation loss {run.value(last.values[-1], step)}; "
        f"{run.yardstick}"
    )


def collapsed(run: Measurements) -> Evidence:
    """Learning lost again: a loss that had left the untrained one comes back to it, on the training data as well."""
    left, returned = LEFT * run.untrained, RETURNED * run.untrained
    if not run.train or run.level < returned:
        return None
    best = run.validation.best()
    if best is None:
        return _training_collapsed(run)
    step, value = run.validation.steps[-1], run.validation.values[-1]
    if best[1] < left and value > returned:
        losses = f"{run.value(best[1], best[0])}, and then {run.value(value, step)}"
        return f"validation loss was {losses}; training loss was {run.average(run.newest)}; {run.yardstick}"
    return _training_collapsed(run) if value > left or step < run.newest.steps[0] else None


def _training_collapsed(run: Measurements) -> Evidence:
    """The same in the training loss alone, for as long as two levels."""
    train, width = run.train, window(len(run.train))
    before, now = train.part(0, len(train) - 2 * width), train.last(2 * width)
    halves = now.values[:width], now.values[width:]
    if not before or any(mean(half) < RETURNED * run.untrained for half in halves):
        return None
    levels = (before.part(start, start + width) for start in range(len(before) - width + 1))
    lowest = min(levels, key=lambda part: mean(part.values), default=Series())
    if not lowest or mean(lowest.values) > LEFT * run.untrained:
        return None
    if mean(now.values) - mean(lowest.values) < (SURE + 1) * run.error(width):
        return None
    return f"training loss was {run.average(lowest)}, and then {run.average(now)}; {run.yardstick}"


def thrown(run: Measurements) -> Evidence:
    """Validation loss far above the untrained one while the training loss rose: thrown, not memorising."""
    trained = by_step(run.trained)
    for index, (step, value) in enumerate(zip(run.validation.steps, run.validation.values, strict=True)):
        if value <= THROWN * run.untrained:
            continue
        later = run.validation.part(index + 1, len(run.validation)).values
        rose = trained.get(step, -math.inf) > (1 + RISEN) * run.untrained
        if rose and (any(loss < run.untrained for loss in later) or run.trained.values[-1] > run.untrained):
            return (
                f"it was {run.value(value, step)}, with training loss {run.average(run.before(step))}; {run.yardstick}"
            )
        best = run.validation.part(0, index).best()
        if best is None or best[1] >= run.untrained / 2:
            continue
        if step in trained and best[0] in trained and trained[step] < trained[best[0]] + RISEN * run.untrained:
            continue
        return f"it was {run.value(best[1], best[0])}, and {run.value(value, step)}; {run.yardstick}"
    return None


def oscillating(run: Measurements) -> Evidence:
    """Loss oscillating: wide swings of the smoothed training loss, or of the validation loss."""
    for width in (2, LEVEL // 2, LEVEL, 2 * LEVEL):
        turns = _training_swings(run, width)
        if len(turns) > SWINGS:
            return f"training loss, as the mean of {width} logs, swings {path(turns[-SWINGS - 1 :])}"
    held_out = run.validation.last(RECENT)
    points = list(zip(held_out.steps, held_out.values, strict=True))
    turns = _turns(points, EVAL_SWING * run.untrained)
    wide = _turns([(0, run.untrained), *points], SWING * run.untrained)
    if len(wide) > WIDE_SWINGS + 1:  # the first of them is learning, or its contrary
        return f"validation loss swings {path(wide[1:][-SWINGS - 1 :])}"
    return f"validation loss swings {path(turns[-SWINGS - 1 :])}" if len(turns) > SWINGS else None


def _training_swings(run: Measurements, width: int) -> list[tuple[int, float]]:
    """Lows and highs of the means of ``width`` logs each; blocks are counted from the start, so that they stay."""
    train = run.train
    if run.pairs * width < BLOCK_PAIRS:
        return []
    begin = max(len(train) - RECENT, 0) // width * width
    blocks = [train.part(start, start + width) for start in range(begin, len(train) - width + 1, width)]
    if len(blocks) <= SWINGS:
        return []
    levels = [mean(block.values) for block in blocks]
    distances = [value - level for block, level in zip(blocks, levels, strict=True) for value in block.values]
    noise = math.hypot(*distances) / math.sqrt(len(blocks) * (width - 1) * width)
    points = [(block.steps[-1], level) for block, level in zip(blocks, levels, strict=True)]
    return _turns(points, max(SWING * run.untrained, SWING_NOISE * noise))


def _turns(points: Sequence[tuple[int, float]], swing: float) -> list[tuple[int, float]]:
    """Alternating lows and highs of a curve that lie at least ``swing`` apart, its ends included."""
    turns = list(points[:1])
    direction = 0
    for step, value in points[1:]:
        if direction and (value - turns[-1][1]) * direction > 0:
            turns[-1] = (step, value)
        elif abs(value - turns[-1][1]) >= swing:
            direction = 1 if value > turns[-1][1] else -1
            turns.append((step, value))
    return turns


def onset(run: Measurements) -> int | None:
    """Step of the first non-finite loss or first spike."""
    bad = non_finite(run.curves.get(LOSS, Split.TRAINING)).steps
    return min([*bad[:1], *spikes(run).steps[:1]], default=None)
