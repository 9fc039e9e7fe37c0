"""The first screen of the report, and all of the poster: how the run went, what to do next, the result in numbers."""

from collections.abc import Iterator
from dataclasses import dataclass

from dporun_api.metrics import LOSS, Split
from dporun_api.results import OutcomeState, Stage, VerdictState
from dporun_trainer.diagnosis import remedies
from dporun_trainer.diagnosis.verdict import GOOD_MARGIN
from dporun_trainer.reporting.numbers import number, percent
from dporun_trainer.reporting.run_data import Record


@dataclass(frozen=True)
class Headline:
    """What a reader sees first.

    Attributes:
        tone: good, fair or poor; decides the colour.
        title: one or two words.
        text: one sentence that says how the run went.
        action: what to do next.

    """

    tone: str
    title: str
    text: str
    action: str


@dataclass(frozen=True)
class Tile:
    """One number of the first screen."""

    name: str
    value: str
    detail: str = ""


def headline(record: Record) -> Headline:
    """Summarise a run: a failure first, else the verdict, else how far it is."""
    verdict, health = record.verdict, record.health
    advice = next(iter(health.suggestions), None) if health else None
    change = advice and (f"Change {remedies.describe(advice)} and run again." if advice.proposed else advice.reason)
    change = change or _train_longer(record)
    if record.outcome and record.outcome.state is OutcomeState.FAILED:
        failure = record.outcome.failure
        text = failure.message if failure else record.outcome.message
        hint = failure.hint if failure and failure.hint else None
        return Headline("poor", "Failed", text, hint or change or "Look at the log of the run's pods.")
    if record.outcome and record.outcome.state is OutcomeState.PREEMPTED:
        kept = f"The best checkpoint so far is kept: {record.best.path}." if record.best and record.best.path else None
        return Headline("fair", "Stopped", record.outcome.message, kept or change or "Start it again.")
    if verdict is None:
        done = record.progress.stage is Stage.DONE
        step = f"Step {record.progress.step} of {record.progress.total_steps}." if record.progress.total_steps else ""
        title = "Finished" if done else "Not finished"
        return Headline("fair", title, step or "There is no result yet.", change or "Wait for the run to end.")
    first = next(iter(verdict.reasons), "")
    match verdict.state:
        case VerdictState.GOOD:
            action = "Use it: final/ is the adapter, merged/ the whole model."
            return Headline("good", "Good", first, action)
        case VerdictState.FAIR:
            action = change or "Read the answers below, and decide whether they are good enough."
            return Headline("fair", "Fair", first, action)
        case _:
            action = change or "Read the answers below, worst first, to find out what the data does not teach."
            return Headline("poor", "Needs improvement", first, action)


def _train_longer(record: Record) -> str | None:
    """Advise more epochs when the margin is small and the last checkpoint was the best: it was still improving."""
    margin, validations = record.metrics.get("reward_margin"), record.curves.get(LOSS, Split.VALIDATION).steps
    if record.config is None or margin is None or margin >= GOOD_MARGIN:
        return None
    if record.best is None or not validations or record.best.step != validations[-1]:
        return None
    longer = remedies.more_epochs(remedies.RunValues.of(record.config), remedies.Observations())
    return f"The model was still learning: change {remedies.describe(longer)} and run again." if longer else None


def tiles(record: Record) -> Iterator[Tile]:
    """The result in a handful of numbers."""
    m = record.metrics
    if "accuracy" in m:
        interval = ""
        if m.get("accuracy_low") is not None and m.get("accuracy_high") is not None:
            interval = f"95 % interval {percent(m['accuracy_low'])} to {percent(m['accuracy_high'])}"
        yield Tile("Accuracy", percent(m["accuracy"]), interval)
        rewards = f"chosen {number(m.get('avg_chosen_reward'))}, rejected {number(m.get('avg_rejected_reward'))}"
        yield Tile("Reward margin", number(m.get("reward_margin")), rewards)
    if m.get("compared"):
        detail = f"{m.get('equal', 0)} equal, of {m['compared']} answers"
        yield Tile("Better / worse", f"{m.get('better', 0)} / {m.get('worse', 0)}", detail)
    if m.get("forgetting") is not None:
        lost, asked = record.forgetting.get("lost"), record.forgetting.get("questions")
        yield Tile(
            "Forgetting",
            percent(m["forgetting"]),
            f"{lost} correct answers lost, of {asked} questions" if asked else "",
        )
    if record.best and record.best.eval_loss is not None:
        epoch = "" if record.best.epoch is None else f", epoch {record.best.epoch:.3g}"
        yield Tile("Validation loss", number(record.best.eval_loss), f"best, at step {record.best.step}{epoch}")
