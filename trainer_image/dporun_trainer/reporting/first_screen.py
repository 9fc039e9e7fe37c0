"""The first screen of the report, and all of the poster: how the run went, what to do next, the result in numbers."""

from collections.abc import Iterator
from dataclasses import dataclass

from dporun_api.results import GateOutcome, OutcomeState, Stage, Suggestion, VerdictState
from dporun_trainer import suggestions
from dporun_trainer.reporting.numbers import number, percent
from dporun_trainer.reporting.run_data import RunData


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


def headline(record: RunData, longer: Suggestion | None = None) -> Headline:
    """Summarise a run: a failure first, else the verdict, else how far it is.

    Args:
        record: the run.
        longer: what to change where nothing else is to be changed.

    """
    verdict, health = record.verdict, record.health
    advice = next(iter(health.suggestions), None) if health else None
    change = advice and (f"Change {suggestions.describe(advice)} and run again." if advice.proposed else advice.reason)
    if change is None and longer is not None:
        change = f"The model was still learning: change {suggestions.describe(longer)} and run again."
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
            undecided = next((gate for gate in verdict.gates if gate.outcome is GateOutcome.UNDECIDED), None)
            more = undecided and f"Evaluate it on more examples: {undecided.needed_to_decide} decide {undecided.name}."
            action = change or more or "Read the answers below, and decide whether they are good enough."
            return Headline("fair", "Fair", first, action)
        case _:
            action = change or "Read the answers below, worst first, to find out what the data does not teach."
            return Headline("poor", "Needs improvement", first, action)


def tiles(record: RunData) -> Iterator[Tile]:
    """The result in a handful of numbers."""
    m = record.metrics
    if m is not None:
        interval = ""
        if m.accuracy_low is not None and m.accuracy_high is not None:
            interval = f"95 % interval {percent(m.accuracy_low)} to {percent(m.accuracy_high)}"
        result, verdict = m.summary(), record.verdict
        yield Tile("Accuracy", verdict.accuracy(result) if verdict else percent(m.accuracy), interval)
        beta = "" if m.beta is None else f"at beta {m.beta:g}: "
        rewards = f"{beta}chosen {number(m.avg_chosen_reward)}, rejected {number(m.avg_rejected_reward)}"
        margin = verdict.reward_margin(result) if verdict else number(m.reward_margin)
        yield Tile("Reward margin", margin, rewards)
        if m.compared:
            detail = f"{m.equal} equal, of {m.compared} answers; p = {number(m.better_p_value, 2)}"
            yield Tile("Better / worse", f"{m.better} / {m.worse}", detail)
        if m.forgetting is not None:
            asked = record.forgetting
            lost = f"{asked.lost} lost of {asked.base_right} correct answers" if asked else ""
            share = verdict.forgetting(result) if verdict else None
            yield Tile("Forgetting", share or percent(m.forgetting), lost)
    if record.best and record.best.eval_loss is not None:
        epoch = "" if record.best.epoch is None else f", epoch {record.best.epoch:.3g}"
        yield Tile("Validation loss", number(record.best.eval_loss), f"best, at step {record.best.step}{epoch}")
