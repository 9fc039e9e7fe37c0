"""A seeded model of preference training, margin by margin, that writes a log history as transformers and TRL do.

The margin of pair i at step t is

    G(t) · sign_i · difficulty_i  +  S(t) · z_i  +  K(t) · (1/2 + softplus(-G(t) · sign_i · difficulty_i)) if met before

with G what was learnt of all pairs, S what spills over onto single pairs (over-confidence and damage), and K what was
memorised of a training pair when it was last met. ``sign_i`` is -1 where the label is wrong. Loss, margin and accuracy
of a log are the means over one draw of pairs, so they fit each other.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dporun_testing.labelled.criteria import Course, Events, Visible

Floats = np.ndarray[Any, np.dtype[np.float64]]
Pairs = tuple[Floats, Floats, Floats]
"""Difficulty, sign and z of pairs."""
Entry = dict[str, Any]
POPULATION = 400
"""Pairs by which the true course is measured; stratified, so that few suffice."""
POINTS = 80
"""Points of the true course besides the validations."""


@dataclass
class Recipe:
    """How a run is made."""

    pairs: int = 200
    validation_pairs: int = 40
    batch: int = 8
    epochs: float = 2
    steps: int | None = None
    """Stop after so many; else after the epochs."""
    log_every: int = 1
    validations: tuple[float, ...] = ()
    """Shares of the run at which there is a validation; 0 is before the first step."""
    loss: str = "sigmoid"
    beta: float = 0.1
    smoothing: float = 0.0
    learning_rate: float = 1e-5
    schedule: str = "linear"
    warmup: float = 0.0
    shape: str = "saturating"
    """How G grows with the learning that is done: saturating, linear, late or sigmoidal."""
    strength: float = 2.0
    """G when all learning of the plan is done."""
    rapid: float = 3.0
    """How early G comes to that."""
    spread: float = 0.5
    """Spread of the difficulty of pairs."""
    wrong: float = 0.0
    """Share of wrong labels."""
    validation_sign: float = 1.0
    """-1: chosen and rejected are swapped in the validation data; between: in so large a part of it."""
    memory: float = 0.2
    """K per epoch of full learning rate."""
    spill: float = 0.1
    """S per epoch of full learning rate, to the power ``spill_power``."""
    spill_power: float = 1.0
    tail: float = 0.0
    """S relative to G: margins with heavy tails, on all pairs."""
    decay: float = 0.0
    """Share of G that memorising destroys by the end."""
    gradient: float = 1.0
    """Scale of the gradient norm."""
    first_gradient: float = 1.0
    """Factor of the norm before anything is learnt, where all pairs pull in one direction."""
    swings: tuple[tuple[float, float, float, float], ...] = ()
    """(begin, length, keeps, adds): at a share of the run G falls to a share of itself and S grows, then both recover
    within ``length`` of the run."""
    collapse: tuple[float, float, float] | None = None
    """(begin, keeps, adds): the same, for good."""
    diverge: tuple[float, float] | None = None
    """(begin, S at the end): S grows exponentially."""
    hot: tuple[float, float] | None = None
    """(median, spread of the logarithm) of S, a random walk over the whole run."""
    spikes: tuple[tuple[float, float], ...] = ()
    """(share of the run, S): single steps."""
    gradient_peaks: tuple[tuple[float, float], ...] = ()
    """(share of the run, factor): single steps whose gradient is clipped and does no harm."""
    nan: float | None = None
    """Share of the run after which all is NaN."""
    nan_steps: int | None = None
    """Training recovers after so many."""
    nan_filter: bool = True
    """transformers' logging_nan_inf_filter."""
    extras: Mapping[str, float] = field(default_factory=dict)
    """Further keys of every training log."""


@dataclass
class Simulated:
    """What a recipe came to."""

    history: list[Entry]
    course: Course
    seen: Course
    validated: Course
    events: Events
    visible: Visible
    max_steps: int


def softplus(x: Floats) -> Floats:
    """log(1 + exp(x)) without overflow."""
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


LOSSES: Mapping[str, Callable[[Floats, "Recipe"], Floats]] = {
    "sigmoid": lambda m, r: (1 - r.smoothing) * softplus(-m) + r.smoothing * softplus(m),
    "hinge": lambda m, _: np.maximum(0, 1 - m),
    # per token; a margin of 2 is the target's one half
    "ipo": lambda m, r: ((np.clip(m, -40, 40) / 4 - 1) / (2 * r.beta)) ** 2,
    "robust": lambda m, r: ((1 - r.smoothing) * softplus(-m) - r.smoothing * softplus(m)) / (1 - 2 * r.smoothing),
    "apo_zero": lambda m, _: 2 / (1 + np.exp(np.clip(m / 2, -60, 60))),
    "nca_pair": lambda m, _: softplus(-m / 2) + 0.5 * softplus(m / 2) + 0.5 * softplus(-m / 2),
}


def _optimum(recipe: Recipe) -> float:
    """The margin at which the loss of a pair is least; no training goes beyond it."""
    if recipe.loss == "ipo":
        return 4.0
    if recipe.smoothing and recipe.loss == "sigmoid":
        return math.log(1 / recipe.smoothing - 1)
    return math.inf


def simulate(recipe: Recipe, seed: int) -> Simulated:
    """Play a recipe; equal seeds give equal runs."""
    return _Run(recipe, np.random.default_rng(seed)).play()


class _Run:
    def __init__(self, recipe: Recipe, chance: np.random.Generator) -> None:
        self.recipe, self.chance = recipe, chance
        self.per_epoch = max(1, math.ceil(recipe.pairs / recipe.batch))
        self.steps = recipe.steps or max(1, round(self.per_epoch * recipe.epochs))
        self.loss = LOSSES[recipe.loss]
        self.untrained = float(self.loss(np.zeros(1), recipe)[0])
        self.optimum = _optimum(recipe)
        self._set_states()
        self.validated = sorted({round(share * self.steps) for share in recipe.validations})
        strata = (np.arange(POPULATION) + 0.5) / POPULATION
        order = np.random.default_rng(7)
        self.population = (
            _difficulty(_normal(strata), recipe.spread),
            np.where(order.permutation(strata) < recipe.wrong, -1.0, 1.0),
            order.permutation(_normal(strata)),
        )
        validation = self._draw((recipe.validation_pairs,))
        swapped = chance.random(recipe.validation_pairs) < (1 - recipe.validation_sign) / 2
        self.own = (validation[0], np.where(swapped, -1.0, 1.0) * validation[1], validation[2])

    def _set_states(self) -> None:
        """G, S and K after every step, from 0 to the last."""
        recipe, steps = self.recipe, self.steps
        done = np.arange(steps + 1) / steps
        rates = _schedule(recipe, done)
        self.rates = rates * recipe.learning_rate
        learning = np.concatenate([[0.0], np.cumsum(rates[:-1])])
        share = learning / max(learning[-1], 1e-12)
        epochs = learning / self.per_epoch
        general = (
            min(recipe.strength, self.optimum)
            * _SHAPES[recipe.shape](share, recipe.rapid)
            * (1 - recipe.decay * share**2)
        )
        spill = recipe.spill * epochs**recipe.spill_power + recipe.tail * general
        whole_epochs = (np.maximum(np.arange(steps + 1) - 1, 0) // self.per_epoch) * self.per_epoch
        self.kept = recipe.memory * epochs
        self.shown = recipe.memory * epochs[whole_epochs]
        for begin, length, keeps, adds in recipe.swings:
            since = (done - begin) / length
            weight = np.where(since >= 0, np.exp(-3 * np.maximum(since, 0)), 0.0)
            general = general * (1 - weight * (1 - keeps))
            spill = spill + weight * adds
            self.kept, self.shown = self.kept * (1 - 0.8 * weight), self.shown * (1 - 0.8 * weight)
        if recipe.collapse:
            begin, keeps, adds = recipe.collapse
            after = done >= begin
            general = np.where(after, general * keeps, general)
            spill = np.where(after, adds, spill)
            self.kept, self.shown = np.where(after, 0, self.kept), np.where(after, 0, self.shown)
        if recipe.diverge:
            begin, worst = recipe.diverge
            since = np.maximum(done - begin, 0) / (1 - begin)
            spill = np.where(since > 0, np.maximum(spill, 0.3 * (worst / 0.3) ** since), spill)
            general = general * np.exp(-6 * since)
            self.kept, self.shown = self.kept * np.exp(-6 * since), self.shown * np.exp(-6 * since)
        if recipe.hot:
            median, spread = recipe.hot
            walk = np.zeros(steps + 1)
            shocks = self.chance.normal(0, 1, steps + 1)
            for step in range(1, steps + 1):
                walk[step] = 0.7 * walk[step - 1] + 0.71 * shocks[step]
            spill = np.where(done > 0, median * np.exp(spread * walk), spill)
        self.general, self.spill = general, spill
        self.spiky = spill.copy()
        for place, size in recipe.spikes:
            self.spiky[max(1, round(place * steps))] += size

    def _draw(self, shape: tuple[int, ...]) -> Pairs:
        """Difficulty, sign and z of random pairs."""
        normals = self.chance.standard_normal((2, *shape))
        signs = np.where(self.chance.random(shape) < self.recipe.wrong, -1.0, 1.0)
        return _difficulty(normals[0], self.recipe.spread), signs, normals[1]

    def _margins(self, pairs: Pairs, general: Floats, spill: Floats, memory: Floats) -> Floats:
        margins = general * pairs[0] * pairs[1] + spill * pairs[2]
        if not np.any(memory):
            return margins
        if math.isfinite(self.optimum):
            return margins + (self.optimum - margins) * (1 - np.exp(-memory / 2))
        return margins + memory * (0.5 + softplus(-margins))

    def play(self) -> Simulated:
        recipe = self.recipe
        moments = [step for step in self.validated if step > 0]
        lost_at = None if recipe.nan is None else max(1, round(recipe.nan * self.steps))
        lost = lost_at is not None and recipe.nan_steps is None
        found_at = None if lost_at is None else lost_at + (recipe.nan_steps or 2**40)
        gone = range(lost_at, found_at) if lost_at is not None and found_at is not None else range(0)
        logs = self._training_logs(gone)
        history = logs + self._validations(gone)
        history.sort(key=lambda entry: (entry["step"], "eval_loss" in entry))
        points = sorted({*np.linspace(0, self.steps, POINTS).astype(int).tolist(), *moments})
        straight = abs(recipe.validation_sign) == 1
        huge = sum(entry["loss"] > 4 * self.untrained for entry in logs) if recipe.spikes else 0
        isolated = huge + 2 * (bool(gone) and not lost)
        return Simulated(
            history,
            self._course(self.population if straight else self.own, points, shown=False),
            self._course(self.own if moments else self.population, points, shown=True),
            self._course(self.own, [0, *moments], shown=True),
            Events(lost, isolated, isolated / max(1, len(logs))),
            Visible(len(logs), len(moments), self.steps / self.per_epoch, self.steps),
            self.steps,
        )

    def _training_logs(self, gone: range) -> list[Entry]:
        recipe, every = self.recipe, self.recipe.log_every
        count = self.steps // every
        # The model that meets a batch is that of the step before.
        before = np.arange(count * every)[:, None]
        pairs = self._draw((count * every, recipe.batch))
        margins = self._margins(pairs, self.general[before], self.spiky[before], self.shown[before + 1])
        losses = self.loss(margins, recipe).mean(axis=1)
        pull = 1 / (1 + np.exp(np.clip(margins.mean(axis=1), -30, 30)))
        start = 1 + (recipe.first_gradient - 1) * np.exp(-(before[:, 0] + 1) / 4)
        noise = self.chance.lognormal(0, 0.25, count * every)
        norms = recipe.gradient * start * pull * (1 + 2 * self.spiky[before[:, 0]]) * noise
        for place, factor in recipe.gradient_peaks:
            norms[min(round(place * self.steps), len(norms) - 1)] *= factor
        rewards = self._rewards(margins.reshape(count, -1), self.general[every - 1 : count * every : every])
        columns = {
            "loss": losses.reshape(count, every).mean(axis=1),
            "grad_norm": norms[every - 1 :: every],
            "learning_rate": self.rates[: count * every][every - 1 :: every],
            **rewards,
        }
        entries = [
            {**dict(zip(columns, row, strict=True)), **recipe.extras, **self._place((index + 1) * every)}
            for index, row in enumerate(zip(*(column.tolist() for column in columns.values()), strict=True))
        ]
        for entry in entries:
            window = range(entry["step"] - every + 1, entry["step"] + 1)
            if lost := [step for step in window if step in gone]:
                self._lose(entry, losses[window.start - 1 : window.stop - 1], lost, window)
        return entries

    def _lose(self, entry: Entry, losses: Floats, lost: list[int], window: range) -> None:
        """Make an entry what it is when the steps ``lost`` of its window are NaN."""
        total = 0.0
        for index, step in enumerate(window):
            # transformers' filter adds the average so far instead, which is 0 at the beginning of a window
            total += (
                (total / (1 + index) if self.recipe.nan_filter else math.nan) if step in lost else float(losses[index])
            )
        entry["loss"] = total / len(window)
        entry["rewards/accuracies"] *= 1 - len(lost) / len(window)
        for key in ("rewards/chosen", "rewards/rejected", "rewards/margins", "logps/chosen", "logps/rejected"):
            entry[key] = math.nan
        if window[-1] in lost:
            entry["grad_norm"] = math.nan

    def _validations(self, gone: range) -> list[Entry]:
        steps = np.array(self.validated, dtype=int)
        margins = self._margins(self.own, self.general[steps, None], self.spill[steps, None], np.zeros((len(steps), 1)))
        columns = {"loss": self.loss(margins, self.recipe).mean(axis=1), **self._rewards(margins, self.general[steps])}
        entries = []
        for index, step in enumerate(self.validated):
            values = {key: float(column[index]) for key, column in columns.items()}
            if step in gone:
                values = dict.fromkeys(values, math.nan) | {"rewards/accuracies": 0.0}
            entries.append({**{f"eval_{key}": value for key, value in values.items()}, **self._place(step)})
        return entries

    def _place(self, step: int) -> Entry:
        return {"epoch": step / self.per_epoch, "step": step}

    def _course(self, pairs: Pairs, steps: list[int], *, shown: bool) -> Course:
        """The course on ``pairs``; with ``shown`` the training loss is that which the logs show, not the model's."""
        general, spill = self.general[steps, None], self.spill[steps, None]
        memory = (self.shown if shown else self.kept)[steps, None]
        sign = self.recipe.validation_sign if pairs is self.population else 1.0
        margins = self._margins((pairs[0], pairs[1] * sign, pairs[2]), general, spill, np.zeros_like(memory))
        own = self._margins(self.population, general, spill, memory)
        training = self.loss(own, self.recipe).mean(axis=1) / self.untrained
        if shown:  # as points between two logs are averaged there
            logs = np.ceil(np.array(steps) / self.recipe.log_every)
            training = np.array([training[logs == log].mean() for log in logs])
        return Course(
            tuple((self.loss(margins, self.recipe).mean(axis=1) / self.untrained).tolist()),
            tuple(training.tolist()),
            float((margins[-1] > 0).mean()),
            float(margins[-1].mean()),
        )

    def _rewards(self, margins: Floats, general: Floats) -> dict[str, Floats]:
        """Rewards and log-probabilities that fit margins (a row per log); all responses slowly become less likely."""
        noise = self.chance.normal(0, 1, (3, len(margins)))
        drift = -0.4 * general + 0.02 * noise[0]
        margin = margins.mean(axis=1)
        chosen, rejected = drift + 0.4 * margin, drift - 0.6 * margin
        return {
            "rewards/chosen": chosen,
            "rewards/rejected": rejected,
            "rewards/accuracies": (margins > 0).mean(axis=1),
            "rewards/margins": margin,
            "logps/chosen": -60 + 3 * noise[1] + chosen / self.recipe.beta,
            "logps/rejected": -70 + 3 * noise[2] + rejected / self.recipe.beta,
        }


def _difficulty(normals: Floats, spread: float) -> Floats:
    return np.maximum(1 + spread * normals, 0.02)


def _normal(shares: Floats) -> Floats:
    """Quantiles of the normal distribution, to three digits (Tukey's lambda)."""
    return (shares**0.1349 - (1 - shares) ** 0.1349) * 4.91


def _schedule(recipe: Recipe, done: Floats) -> Floats:
    warm = np.minimum(1.0, done / recipe.warmup) if recipe.warmup else np.ones_like(done)
    rest = np.clip((done - recipe.warmup) / max(1 - recipe.warmup, 1e-9), 0, 1)
    falls = {"linear": 1 - rest, "cosine": 0.5 * (1 + np.cos(np.pi * rest)), "constant": np.ones_like(done)}
    return np.asarray(warm * falls[recipe.schedule], dtype=np.float64)


_SHAPES: Mapping[str, Callable[[Floats, float], Floats]] = {
    "saturating": lambda share, rapid: (1 - np.exp(-rapid * share)) / (1 - math.exp(-rapid)),
    "linear": lambda share, _: share,
    "late": lambda share, rapid: 1 / (1 + np.exp(-(share - 0.55) * 4 * rapid)) - 1 / (1 + math.exp(0.55 * 4 * rapid)),
    "sigmoidal": lambda share, rapid: 1 / (1 + np.exp(-(share - 0.3) * 5 * rapid)) - 1 / (1 + math.exp(1.5 * rapid)),
}
