"""Whether there is enough history to say that a run without signs is on track. Pure."""

from dporun_trainer.diagnosis.measurements import Measurements, newest
from dporun_trainer.run_folder.curves import Series, mean

ENOUGH_LOGS = 10
"""Training logs before a run without signs is called healthy; a validation is enough as well."""
ENOUGH_STEPS = 5
"""Optimizer steps; what two or three of them did to a loss says nothing, whatever it is."""
LEARNT = 0.95
"""A loss below this share of the untrained one has moved."""
BEGUN_AGAIN = 1.05
"""Epochs after which pairs have been met again in earnest."""
SHOWN_ONCE = 0.5
"""Without validation, this share of what training gained must have been gained on pairs that it met for the first time;
what it gained by meeting them again may be memorised."""


def too_little(run: Measurements) -> str | None:
    """Say what is missing for a diagnosis; None when nothing is."""
    if run.validation:
        moved = run.validation.values[-1] < LEARNT * run.untrained
        if run.curves.last_step < ENOUGH_STEPS and not moved:
            return f"Too little history for a diagnosis: {run.curves.last_step} steps."
        return None if run.train else "Too little history for a diagnosis: there is no training loss."
    if len(run.train) < ENOUGH_LOGS:
        return "Too little history for a diagnosis."
    return _only_repeated(run.settled)


def _only_repeated(run: Measurements) -> str | None:
    """Without validation, the loss of the first epoch tells what was learnt, as the model had not met those pairs."""
    if not run.train or run.curves.last_epoch is None or run.curves.last_epoch <= BEGUN_AGAIN:
        return None
    first = _newest_of_first_epoch(run)
    gained = run.untrained - run.level
    if gained <= (1 - LEARNT) * run.untrained or (first and run.untrained - mean(first.values) >= SHOWN_ONCE * gained):
        return None
    before = (
        f": training loss was {run.average(first)}, in the first epoch, and {run.average(run.newest)}" if first else ""
    )
    return f"Without validation, what was learnt after the first epoch cannot be told from what was memorised{before}."


def _newest_of_first_epoch(run: Measurements) -> Series:
    epochs = run.curves.epochs
    return newest(run.train.where([epochs.get(step, 2.0) <= 1 for step in run.train.steps]))
