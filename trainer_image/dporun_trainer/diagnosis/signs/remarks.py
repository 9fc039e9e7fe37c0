"""Remarks besides the signs, which do not change the state: good signs, warnings, and what cannot be seen. Pure."""

from dporun_api.metrics import LOGPS_CHOSEN, Split
from dporun_trainer.diagnosis.measurements import Measurements, by_step, newest, show
from dporun_trainer.diagnosis.signs import Evidence, overfitting, unstable
from dporun_trainer.run_folder.curves import Series, mean

WRECKED = 10.0
"""A log-probability of chosen responses that falls to this multiple of what it was is no longer ordinary: such a model
may answer with nothing but garbage, whatever its margins are."""


def losses(run: Measurements) -> Evidence:
    """How far the losses have come."""
    if not run.train or unstable.broken_since(run, run.train.steps[-1]):
        return None
    first, best = run.train.part(0, 1), run.validation.best()
    held_out = f"; the lowest validation loss is {run.value(best[1], best[0])}" if best else ""
    if len(run.train) == 1:
        return f"Training loss is {run.average(first)}{held_out}."
    return f"Training loss went from {run.average(first)} to {run.average(run.newest)}{held_out}."


def rewards(run: Measurements) -> Evidence:
    """Rewards: chosen > rejected, the good sign, or the contrary."""
    split = next((split for split in (Split.VALIDATION, Split.TRAINING) if run.margins(split)), None)
    if split is None:
        return None
    margins = run.margins(split)
    last, accuracy = margins.steps[-1], run.accuracies(split).get(margins.steps[-1])
    if unstable.broken_since(run, last):
        return None
    shown = newest(margins) if split is Split.TRAINING else margins.last(1)
    share = f", with accuracy {run.value(accuracy, last)}" if accuracy is not None else ""
    margin = mean(shown.values)
    higher = f"{'Chosen' if margin > 0 else 'Rejected'} responses have the higher rewards"
    who = higher if margin else "Chosen and rejected responses have the same rewards"
    return f"{who} on the {split} data: margin {run.average(shown)}{share}."


def log_probability(run: Measurements) -> Evidence:
    """Log-probability of chosen responses falling: ordinary while the margin rises, a warning when it falls tenfold."""
    for split in (Split.VALIDATION, Split.TRAINING):
        chosen = run.curves.get(LOGPS_CHOSEN, split).finite()
        before, after = _ends(chosen, split)
        if not before or unstable.broken_since(run, chosen.steps[-1]):
            continue
        fell = f"the log-probability of chosen responses fell from {run.average(before)} to {run.average(after)}"
        was, now = mean(before.values), mean(after.values)
        if now < WRECKED * was < 0:
            return (
                f"Warning: {fell}. Look at answers of the model: it may have forgotten how to write, whatever its "
                "rewards are."
            )
        margins = by_step(run.margins(split))
        old, new = ([margins[step] for step in part.steps if step in margins] for part in (before, after))
        if now < was and old and new and mean(new) > mean(old):
            return (
                f"For information: {fell} while the margin rose. DPO often lowers the probability of both responses; "
                "only the difference counts."
            )
        return None
    return None


def _ends(series: Series, split: Split) -> tuple[Series, Series]:
    """The beginning and the end of a curve."""
    width = 1 if split is Split.VALIDATION else len(newest(series))
    if len(series) < 2 * width or not series:
        return Series(), Series()
    return series.part(0, width), series.last(width)


def few_spikes(run: Measurements) -> Evidence:
    """Spikes that are too few to be a sign."""
    found = unstable.spikes(run)
    if not 0 < len(found) < unstable.PEAKS:
        return None
    shown = " and ".join(run.value(value, step) for step, value in zip(found.steps, found.values, strict=True))
    return f"Training loss jumped to {shown}. That is too seldom to be a sign; look at the rows of that batch."


def passed_no_number(run: Measurements) -> Evidence:
    """Losses or rewards that were no numbers, after which training went on."""
    seen = unstable.passed_no_number(run)
    if seen is None or unstable.no_number(run):
        return None
    return f"Warning: {seen}, and training went on well. Look at the rows of that batch."


def clipped_gradients(run: Measurements) -> Evidence:
    """Peaks of the gradients that clipping made harmless."""
    first, large = unstable.exploded_gradients(run)
    if not large or unstable.exploding(run):
        return None
    return f"Gradients had peaks that did no harm: {unstable.explain_gradients(run, first, large)}."


def over_confident(run: Measurements) -> Evidence:
    """Validation loss that rises a little although the model orders pairs no worse."""
    best = run.validation.best()
    if best is None or not overfitting.risen(run) or not overfitting.over_confident(run):
        return None
    last, accuracy = run.validation.steps[-1], run.accuracies(Split.VALIDATION)
    rose = f"{run.value(best[1], best[0])} to {run.value(run.validation.values[-1], last)}"
    return (
        f"Validation loss rose from {rose}, but accuracy went from {show(accuracy[best[0]])} to {show(accuracy[last])} "
        "and the margin grew: the model is surer of all pairs, not worse at telling them apart."
    )


def unseen(run: Measurements) -> Evidence:
    """What the history cannot show."""
    if run.validation or not run.train:
        return None
    if run.finished or (run.curves.last_epoch or 0) > 1:
        return "No validation: overfitting cannot be seen."
    return None
