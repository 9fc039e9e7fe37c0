"""The simulated runs: kinds of runs, each made many times with other sizes, rhythms and strengths."""

import functools
import math
import random
import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from dporun_testing.labelled.criteria import label
from dporun_testing.labelled.run import LabelledRun
from dporun_testing.labelled.simulator import Entry, Recipe, simulate
from dporun_trainer.diagnosis.remedies import RunValues

LONGEST = 2000
"""Optimizer steps of the longest run."""
MOST_DRAWN = 30_000
"""Pairs that a run meets at most, for the sake of time."""


def simulated_runs() -> tuple[LabelledRun, ...]:
    """All simulated runs; the same at every call."""
    return _made()


@functools.cache
def _made() -> tuple[LabelledRun, ...]:
    return tuple(_make(kind, index) for kind, (count, _) in KINDS.items() for index in range(count))


def _make(kind: str, index: int) -> LabelledRun:
    name = f"sim-{kind}-{index:02}"
    chance = random.Random(name)
    recipe = KINDS[kind][1](_circumstances(chance), chance)
    result = simulate(recipe, zlib.crc32(name.encode()))
    known = chance.random() < 0.5
    rounded = not known and chance.random() < 0.2
    history = [_written(entry, strings=known, digits=4 if rounded else None) for entry in result.history]
    whole = recipe.steps is None
    settings = RunValues(
        learning_rate=recipe.learning_rate,
        epochs=recipe.epochs if whole else None,
        per_device_batch_size=recipe.batch,
        gradient_accumulation_steps=1,
        processes=1,
        max_grad_norm=1.0,
        lora_rank=16,
        lora_alpha=32,
        lora_dropout=0.0,
        label_smoothing=recipe.smoothing,
        beta=recipe.beta,
        loss=(recipe.loss,),
    )
    return LabelledRun(
        name=name,
        kind=kind,
        history=history,
        label=label(result.course, result.seen, result.validated, result.events, result.visible),
        max_steps=result.max_steps,
        epochs=math.ceil(result.visible.epochs),
        batch=recipe.batch,
        settings=settings if known and whole else None,
    )


def _written(entry: Entry, *, strings: bool, digits: int | None) -> Entry:
    """An entry as it is written: the product's log has words for what is not a number, older programs round."""

    def value(key: str, raw: Any) -> Any:
        if not isinstance(raw, float):
            return raw
        if not math.isfinite(raw):
            return str(raw).replace("nan", "NaN").replace("inf", "Infinity") if strings else raw
        return round(raw, digits) if digits and key in {"loss", "eval_loss", "epoch"} else raw

    return {key: value(key, raw) for key, raw in entry.items()}


def _circumstances(chance: random.Random) -> Recipe:
    """What any run may have, whatever becomes of it: sizes, rhythms, loss."""
    batch = chance.choice((1, 2, 2, 4, 4, 8, 8, 16, 32, 64))
    epochs = chance.choice((1, 1, 2, 3, 3, 5, 8))
    longest = chance.choice((LONGEST, *[LONGEST / 6] * 3))
    steps = int(math.exp(chance.uniform(math.log(20), math.log(longest))))
    steps = min(steps, MOST_DRAWN // batch)
    pairs = max(8, round(steps * batch / epochs))
    steps = math.ceil(pairs / batch) * epochs
    log_every = chance.choice([every for every in (1, 1, 5, 10, 20, 50) if every == 1 or steps / every >= 8])
    return Recipe(
        pairs=pairs,
        validation_pairs=int(math.exp(chance.uniform(math.log(12), math.log(500)))),
        batch=batch,
        epochs=epochs,
        log_every=log_every,
        validations=_rhythm(chance, epochs),
        loss=chance.choice(("sigmoid",) * 10 + ("ipo", "hinge", "robust", "apo_zero")),
        beta=chance.choice((0.1, 0.1, 0.1, 0.05, 0.3)),
        smoothing=chance.choice((0.0, 0.0, 0.0, 0.0, 0.1)),
        learning_rate=math.exp(chance.uniform(math.log(5e-7), math.log(5e-4))),
        schedule=chance.choice(("linear", "linear", "cosine", "constant")),
        warmup=chance.choice((0.0, 0.0, 0.1, 0.1, 0.2)),
        gradient=math.exp(chance.uniform(math.log(0.1), math.log(30))),
        extras=chance.choice(({}, {"entropy": 0.5, "num_tokens": 1000.0, "mean_token_accuracy": 0.6})),
    )


def _rhythm(chance: random.Random, epochs: float) -> tuple[float, ...]:
    start = (0.0,) if chance.random() < 0.3 else ()
    each_epoch = tuple((index + 1) / epochs for index in range(int(epochs)))
    count = chance.choice((4, 8, 10, 20))
    steady = tuple((index + 1) / count for index in range(count))
    return chance.choice(
        (
            start + each_epoch,
            start + each_epoch,
            start + steady,
            start + steady,
            start + steady,
            (*start, 0.5, 1.0),
            (1.0,),
            (),
        )
    )


def _seen(recipe: Recipe) -> Recipe:
    """The recipe with validations enough to see an illness of held-out pairs."""
    if len(recipe.validations) < 3:
        return replace(recipe, validations=tuple((index + 1) / 8 for index in range(8)))
    return recipe


def _many_epochs(recipe: Recipe, chance: random.Random) -> Recipe:
    epochs = chance.choice((5, 8, 10, 15, 20))
    pairs = max(8, round(recipe.pairs * recipe.epochs / epochs))
    each_epoch = tuple((index + 1) / epochs for index in range(epochs))
    rhythm = each_epoch if len(recipe.validations) > 3 else recipe.validations
    steps = math.ceil(pairs / recipe.batch) * epochs
    return replace(
        recipe, epochs=epochs, pairs=pairs, validations=rhythm, log_every=min(recipe.log_every, max(1, steps // 10))
    )


def _steps(recipe: Recipe) -> int:
    return max(1, round(math.ceil(recipe.pairs / recipe.batch) * recipe.epochs))


def healthy(base: Recipe, chance: random.Random) -> Recipe:
    """Learns what holds for other pairs as well; memorises little."""
    return replace(
        base,
        strength=chance.uniform(1, 5),
        rapid=chance.uniform(1, 8),
        shape=chance.choice(("saturating", "saturating", "linear", "sigmoidal")),
        spread=chance.uniform(0.2, 0.8),
        wrong=chance.choice((0, 0, 0, 0.03)),
        memory=chance.uniform(0, 0.4) / base.epochs,
        spill=chance.uniform(0, 0.3) / base.epochs,
    )


def saturated(base: Recipe, chance: random.Random) -> Recipe:
    """Learns everything early and goes on."""
    return replace(
        healthy(base, chance),
        strength=chance.uniform(6, 15),
        rapid=chance.uniform(8, 40),
        shape="saturating",
        wrong=0.0,
        spread=chance.uniform(0.1, 0.3),
    )


def fast(base: Recipe, chance: random.Random) -> Recipe:
    """Learns everything in some fifteen steps; the first gradients are large, the later ones tiny."""
    return replace(
        saturated(base, chance),
        rapid=_steps(base) / chance.uniform(4, 8),
        gradient=chance.uniform(5, 20),
        first_gradient=chance.uniform(1, 15),
        warmup=0.0,
    )


def noisy_labels(base: Recipe, chance: random.Random) -> Recipe:
    """A tenth or a fifth of the labels is wrong; the loss is higher and noisier, but what is learnt is right."""
    return replace(
        healthy(base, chance),
        wrong=chance.uniform(0.08, 0.2),
        strength=chance.uniform(1, 1.8),
        memory=0.05 / base.epochs,
        spread=chance.uniform(0.2, 0.5),
    )


def small_batch(base: Recipe, chance: random.Random) -> Recipe:
    """One or two pairs per log: single logs of several times ln 2 are ordinary."""
    pairs = chance.randint(60, 400)
    return replace(
        healthy(base, chance),
        batch=chance.choice((1, 1, 2)),
        log_every=1,
        pairs=pairs,
        epochs=chance.choice((1, 2, 3)),
        wrong=chance.uniform(0, 0.1),
        tail=chance.uniform(0, 0.5),
        strength=chance.uniform(1.5, 4),
    )


def heavy_tails(base: Recipe, chance: random.Random) -> Recipe:
    """Margins with a standard deviation of 4 to 6: single wrong pairs cost a lot, on both sides alike."""
    return replace(
        healthy(base, chance),
        loss="sigmoid",
        smoothing=0.0,
        strength=chance.uniform(4, 8),
        tail=chance.uniform(0.5, 0.8),
        memory=0.0,
        spill=0.0,
        spread=0.5,
    )


def late(base: Recipe, chance: random.Random) -> Recipe:
    """Nothing for half of the run, then it learns."""
    return replace(healthy(base, chance), shape="late", rapid=chance.uniform(2, 5), strength=chance.uniform(2, 5))


def slow_start(base: Recipe, chance: random.Random) -> Recipe:
    """A warm-up of a third or half of the run."""
    return replace(healthy(base, chance), shape="linear", warmup=chance.uniform(0.3, 0.5))


def few_spikes(base: Recipe, chance: random.Random) -> Recipe:
    """One or two single steps with a huge loss, as bad rows make them; training goes on as before."""
    count = chance.choice((1, 2))
    return replace(
        healthy(base, chance), spikes=tuple((chance.uniform(0.2, 0.9), chance.uniform(10, 60)) for _ in range(count))
    )


def memorising(base: Recipe, chance: random.Random) -> Recipe:
    """Learns something at first, then memorises its pairs for many epochs and pays for it elsewhere."""
    recipe = _many_epochs(base, chance)
    return replace(
        recipe,
        shape="saturating",
        strength=chance.uniform(0.4, 1.5),
        rapid=chance.uniform(4, 12),
        wrong=chance.uniform(0.05, 0.3),
        memory=chance.uniform(3, 12) / recipe.epochs,
        spill=chance.uniform(1.5, 6) / recipe.epochs,
        decay=chance.uniform(0, 0.6),
        schedule=chance.choice(("linear", "cosine", "constant")),
    )


def noise_only(base: Recipe, chance: random.Random) -> Recipe:
    """There is nothing to learn but the training pairs themselves."""
    recipe = _many_epochs(base, chance)
    return replace(
        recipe,
        strength=0.0,
        wrong=0.5,
        memory=chance.uniform(2, 10) / recipe.epochs,
        spill=chance.uniform(0.2, 3) / recipe.epochs,
    )


def gap_only(base: Recipe, chance: random.Random) -> Recipe:
    """Knows its own pairs by heart; on others it is no better than untrained, and no worse."""
    return replace(noise_only(base, chance), spill=0.02)


def timid(base: Recipe, chance: random.Random) -> Recipe:
    """A learning rate far too small."""
    return replace(
        base,
        learning_rate=math.exp(chance.uniform(math.log(1e-9), math.log(1e-7))),
        strength=math.exp(chance.uniform(math.log(1e-5), math.log(0.03))),
        shape=chance.choice(("linear", "saturating")),
        memory=0.001,
        spill=chance.choice((0.0, 0.002)),
    )


def brief(base: Recipe, chance: random.Random) -> Recipe:
    """Moves a little, which is not enough or just enough."""
    return replace(
        base, strength=chance.uniform(0.03, 0.2), shape="linear", memory=0.02 / base.epochs, spill=0.05 / base.epochs
    )


def nothing_to_learn(base: Recipe, chance: random.Random) -> Recipe:
    """Random labels, met once or twice: nothing is learnt, not even by heart."""
    return replace(base, strength=0.0, wrong=0.5, memory=0.02, spill=chance.uniform(0.02, 0.15) / base.epochs)


def swinging(base: Recipe, chance: random.Random) -> Recipe:
    """A learning rate so large that what was learnt is lost and learnt again and again."""
    count = chance.randint(3, 7)
    length = 0.6 / count
    places = [0.12 + 0.85 * (index + chance.uniform(0, 0.4)) / count for index in range(count)]
    swings = tuple((place, length, chance.uniform(-0.5, 0.3), chance.uniform(1, 4)) for place in places)
    return replace(
        _seen(healthy(base, chance)),
        strength=chance.uniform(2, 6),
        rapid=chance.uniform(6, 15),
        shape="saturating",
        swings=swings,
        warmup=min(base.warmup, 0.1),
        learning_rate=chance.uniform(1e-3, 0.1),
    )


def one_swing(base: Recipe, chance: random.Random) -> Recipe:
    """Loses what it learnt once, in the middle, and learns it again."""
    swing = (chance.uniform(0.3, 0.6), 0.2, chance.uniform(-0.5, 0.2), chance.uniform(1, 4))
    return replace(
        healthy(base, chance),
        strength=chance.uniform(2, 6),
        rapid=chance.uniform(6, 15),
        shape="saturating",
        swings=(swing,),
    )


def collapsing(base: Recipe, chance: random.Random) -> Recipe:
    """Learns, then one step destroys it for good: back to the untrained loss."""
    return replace(
        healthy(base, chance),
        strength=chance.uniform(1.5, 5),
        rapid=chance.uniform(5, 12),
        shape="saturating",
        collapse=(chance.uniform(0.35, 0.8), chance.uniform(-0.02, 0.05), chance.uniform(0.05, 1.2)),
    )


def diverging(base: Recipe, chance: random.Random) -> Recipe:
    """The loss climbs without end."""
    return replace(
        healthy(base, chance), diverge=(chance.uniform(0.1, 0.7), math.exp(chance.uniform(math.log(5), math.log(100))))
    )


def hot(base: Recipe, chance: random.Random) -> Recipe:
    """A learning rate that throws the model about from the first step on."""
    return replace(
        base,
        strength=chance.uniform(0, 0.5),
        hot=(chance.uniform(1, 6), chance.uniform(0.4, 1)),
        memory=0.0,
        learning_rate=chance.uniform(0.01, 0.3),
        warmup=0.0,
    )


def thrown(base: Recipe, chance: random.Random) -> Recipe:
    """The first steps throw it out (a loss of 5 is possible), then it comes back to the untrained loss and stays."""
    return replace(
        base,
        strength=chance.uniform(0, 0.1),
        swings=((0.01, chance.uniform(0.4, 0.9), 0.0, chance.uniform(6, 15)),),
        memory=0.0,
        spill=chance.uniform(0.1, 0.6) / base.epochs,
        learning_rate=chance.uniform(0.01, 0.3),
        warmup=0.0,
    )


def nan(base: Recipe, chance: random.Random) -> Recipe:
    """Weights become NaN and stay so."""
    return replace(healthy(base, chance), nan=chance.uniform(0.02, 0.85), nan_filter=chance.random() < 0.6)


def nan_once(base: Recipe, chance: random.Random) -> Recipe:
    """One step is NaN and is skipped; training goes on as before."""
    return replace(healthy(base, chance), nan=chance.uniform(0.1, 0.7), nan_steps=1, nan_filter=False)


def many_spikes(base: Recipe, chance: random.Random) -> Recipe:
    """Every tenth or twentieth step explodes."""
    count = chance.randint(9, 14)
    return replace(
        healthy(base, chance),
        spikes=tuple((chance.uniform(0.05, 1), chance.uniform(20, 100)) for _ in range(count)),
        log_every=1,
    )


def climbing(base: Recipe, chance: random.Random) -> Recipe:
    """Learns nothing and gets slowly worse."""
    return replace(base, strength=0.0, memory=0.0, diverge=(0.05, chance.uniform(0.7, 2.5)))


def jumping(base: Recipe, chance: random.Random) -> Recipe:
    """Jumps between knowing nearly everything and knowing nothing every few logs."""
    count = chance.randint(8, 14)
    places = [0.15 + 0.85 * (index + chance.uniform(0, 0.3)) / count for index in range(count)]
    swings = tuple(
        (place, chance.uniform(1, 1.5) / count, chance.uniform(-0.3, 0.2), chance.uniform(1.5, 4)) for place in places
    )
    return replace(
        _seen(saturated(base, chance)), strength=chance.uniform(4, 8), swings=swings, log_every=1, warmup=0.0
    )


def gradient_peaks(base: Recipe, chance: random.Random) -> Recipe:
    """Some gradients are thirty times as large as their neighbours, are clipped, and do no harm."""
    peaks = tuple((chance.uniform(0.1, 1), chance.uniform(10, 50)) for _ in range(chance.randint(1, 4)))
    return replace(healthy(base, chance), gradient_peaks=peaks, log_every=1)


def over_confident(base: Recipe, chance: random.Random) -> Recipe:
    """Is right about as many held-out pairs as before, but ever more certain, of the wrong ones as well."""
    recipe = _many_epochs(base, chance)
    return replace(
        recipe,
        strength=chance.uniform(2, 4),
        rapid=chance.uniform(4, 10),
        wrong=chance.uniform(0.08, 0.2),
        memory=chance.uniform(2, 6) / recipe.epochs,
        spill=chance.uniform(1, 3) / recipe.epochs,
    )


def half_swapped(base: Recipe, chance: random.Random) -> Recipe:
    """A third to two thirds of the validation data is swapped."""
    return replace(
        _seen(healthy(base, chance)), validation_sign=chance.uniform(-0.3, 0.3), strength=chance.uniform(1, 4)
    )


def swapped(base: Recipe, chance: random.Random) -> Recipe:
    """Chosen and rejected are swapped in the validation data, or in the training data: it learns the opposite."""
    return replace(healthy(base, chance), validation_sign=-1.0, strength=chance.uniform(0.6, 4))


def opposite_and_memorised(base: Recipe, chance: random.Random) -> Recipe:
    """Swapped labels and many epochs."""
    return replace(memorising(base, chance), validation_sign=-1.0, wrong=0.05, strength=chance.uniform(1, 3), decay=0.0)


def tiny(base: Recipe, chance: random.Random) -> Recipe:
    """Two to eight steps."""
    steps = chance.randint(2, 8)
    epochs = chance.choice((1, 2)) if steps >= 4 else 1
    per_epoch = max(1, steps // epochs)
    kind = chance.choice((healthy, fast, timid, brief, brief))
    recipe = replace(
        base,
        pairs=per_epoch * base.batch,
        epochs=epochs,
        log_every=1,
        validations=chance.choice(((), (1.0,), (0.0, 1.0))),
    )
    return kind(recipe, chance)


def few_logs(base: Recipe, chance: random.Random) -> Recipe:
    """A run of some length with three to nine logs, and at most two validations."""
    kind = chance.choice((healthy, healthy, memorising, timid, noise_only))
    recipe = kind(base, chance)
    steps = _steps(recipe)
    return replace(
        recipe, log_every=max(1, steps // chance.randint(3, 9)), validations=chance.choice(((), (1.0,), (0.5, 1.0)))
    )


Maker = Callable[[Recipe, random.Random], Recipe]
KINDS: Mapping[str, tuple[int, Maker]] = {
    "healthy": (80, healthy),
    "saturated": (30, saturated),
    "fast": (30, fast),
    "noisy-labels": (30, noisy_labels),
    "small-batch": (40, small_batch),
    "heavy-tails": (40, heavy_tails),
    "late": (20, late),
    "slow-start": (20, slow_start),
    "few-spikes": (20, few_spikes),
    "memorising": (60, memorising),
    "noise-only": (40, noise_only),
    "gap-only": (20, gap_only),
    "timid": (50, timid),
    "brief": (20, brief),
    "nothing-to-learn": (30, nothing_to_learn),
    "swinging": (40, swinging),
    "one-swing": (10, one_swing),
    "collapsing": (30, collapsing),
    "diverging": (30, diverging),
    "hot": (30, hot),
    "thrown": (20, thrown),
    "nan": (40, nan),
    "nan-once": (10, nan_once),
    "many-spikes": (15, many_spikes),
    "swapped": (40, swapped),
    "opposite-and-memorised": (15, opposite_and_memorised),
    "tiny": (40, tiny),
    "few-logs": (40, few_logs),
    "climbing": (20, climbing),
    "jumping": (20, jumping),
    "gradient-peaks": (15, gradient_peaks),
    "over-confident": (20, over_confident),
    "half-swapped": (10, half_swapped),
}
"""Kinds of simulated runs: how many of each, and what makes one."""
