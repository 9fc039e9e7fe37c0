"""The sign of a confused model: rejected responses get the higher rewards."""

from dporun_api.metrics import Split
from dporun_trainer.diagnosis.measurements import END, LEVEL, Measurements, by_step, show
from dporun_trainer.diagnosis.signs import Evidence
from dporun_trainer.run_folder.curves import mean

MARGIN = -0.1
"""A confused model's reward margin is below this; around 0 a model has learnt nothing, or nothing that generalises."""
ACCURACY = 0.4
"""Its validation accuracy is below this as well; bad luck alone does that to one run in twenty (of 60 pairs)."""
AT_ONCE = -0.5
"""A margin below this needs no second validation."""
FAR_BELOW_CHANCE = 0.3
"""An accuracy below this is no bad luck (one run in a hundred, of 30 pairs). Between the two, OF_TRAINING decides."""
OF_TRAINING = 0.25
"""Its margin is that share of the training margin, and negative. Where labels are noise, memorising them moves margins
of other pairs at random, by much less than those of the memorised ones."""


def confused(run: Measurements) -> Evidence:
    """Rewards: chosen < rejected, in two validations (or the only one), or all along in training."""
    margins = run.margins(Split.VALIDATION)
    accuracy = run.accuracies(Split.VALIDATION)
    recent = margins.last(2)
    enough = len(recent) == 2 or (recent and (run.finished or recent.values[0] < AT_ONCE))
    if enough and all(_wrong(run, step, value, accuracy.get(step, 0.0)) for step, value in by_step(recent).items()):
        step, value = recent.steps[-1], recent.values[-1]
        share = f" and accuracy {show(accuracy[step])}" if step in accuracy else ""
        return f"margin {show(value)}{share} on the validation data at {run.at(step)}"
    training = run.margins(Split.TRAINING).last(2 * LEVEL)
    halves = training.values[:LEVEL], training.values[LEVEL:]
    if len(training) == 2 * LEVEL and all(mean(half) < MARGIN for half in halves):
        return f"margin {run.average(training)} on the training data"
    return None


def _wrong(run: Measurements, step: int, margin: float, accuracy: float) -> bool:
    clearly = accuracy < FAR_BELOW_CHANCE or margin < -OF_TRAINING * _trained(run, step)
    return margin < MARGIN and accuracy < ACCURACY and clearly


def _trained(run: Measurements, step: int) -> float:
    """Margin of the training pairs at a validation."""
    logged = by_step(run.margins(Split.TRAINING))
    values = [logged[place] for place in run.before(step).between(0, END).steps if place in logged]
    return mean(values) if values else 0.0
