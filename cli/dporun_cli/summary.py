"""How a local run ended, for a person: the verdict and the numbers, or what went wrong and what to do."""

from collections.abc import Iterator
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.text import Text

from dporun_api import run_folder
from dporun_api.results import Failure, HealthState, Outcome, VerdictState
from dporun_api.text import number, percent
from dporun_cli.view import HEALTH_STYLE

VERDICT_STYLE = {VerdictState.GOOD: "green", VerdictState.FAIR: "yellow", VerdictState.NEEDS_IMPROVEMENT: "red"}
LOG_LINES = 15


def show_result(console: Console, directory: Path, trained: Outcome, archived: Outcome | None) -> None:
    """Print verdict, numbers and where things are."""
    console.print()
    if trained.verdict:
        title = {VerdictState.NEEDS_IMPROVEMENT: "Needs improvement"}.get(trained.verdict.state, trained.verdict.state)
        style = f"bold {VERDICT_STYLE[trained.verdict.state]}"
        console.print(Text.assemble((title, style), f": {trained.verdict.gates_in_words}"))
        for reason in trained.verdict.reasons:
            console.print(f"  • {reason}", markup=False, soft_wrap=not console.is_terminal)
    for name, value in (*_numbers(trained), *_places(directory, archived)):
        # Soft-wrapped, so that a path can be copied whole.
        console.print(Text.assemble((f"{name:<18}", "dim"), value), soft_wrap=True)


def show_failure(console: Console, failure: Failure | None, log: Path) -> None:
    """Print what happened, what to do, and the end of the log."""
    title = f"Failed: {failure.reason}" if failure else "Failed"
    parts: list[RenderableType] = [Text(failure.message if failure else "The command ended without saying why.")]
    if failure and failure.hint:
        parts.append(Text(failure.hint, style="bold"))
    console.print(Panel(Group(*parts), title=title, title_align="left", border_style="red"))
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
    if failure is None:
        console.print("\n".join(lines[-LOG_LINES:]), markup=False, style="dim", soft_wrap=True)
    console.print(f"Log: {log}", markup=False, soft_wrap=True)


def _numbers(outcome: Outcome) -> Iterator[tuple[str, str | Text]]:
    evaluation, verdict = outcome.evaluation, outcome.verdict
    if evaluation and verdict:
        low, high = evaluation.accuracy_low, evaluation.accuracy_high
        interval = "" if low is None or high is None else f"; 95 % interval {percent(low)} to {percent(high)}"
        yield "accuracy", f"{verdict.accuracy(evaluation)}  ({evaluation.examples} pairs{interval})"
        beta = "" if evaluation.beta is None else f"at beta {evaluation.beta:g}: "
        margin = f"{beta}{evaluation.avg_chosen_reward:+.2f} chosen, {evaluation.avg_rejected_reward:+.2f} rejected"
        yield "reward margin", f"{verdict.reward_margin(evaluation)}  ({margin})"
        if forgotten := verdict.forgetting(evaluation):
            asked = evaluation.known_questions
            known = "" if asked is None else f"  (of {asked} questions that the base model answers)"
            yield "forgetting", f"{forgotten}{known}"
        if evaluation.better_p_value is not None:
            counts = f"{evaluation.better} better, {evaluation.worse} worse, {evaluation.equal} equal"
            clear = "yes" if evaluation.better_than_base else "not noticeably"
            yield "better than base", f"{clear}  ({counts}; p = {number(evaluation.better_p_value, 2)})"
    if outcome.metrics and outcome.metrics.eval_loss is not None:
        yield "validation loss", str(number(outcome.metrics.eval_loss))
    if outcome.best_checkpoint:
        best = outcome.best_checkpoint
        loss = "" if best.eval_loss is None else f", validation loss {number(best.eval_loss)}"
        yield "best checkpoint", f"step {best.step}{loss}"
    if outcome.health and outcome.health.state is not HealthState.UNKNOWN:
        yield "health", Text(outcome.health.state, style=HEALTH_STYLE[outcome.health.state])


def _places(directory: Path, archived: Outcome | None) -> Iterator[tuple[str, str]]:
    for name, path in (
        ("adapter", run_folder.FINAL),
        ("merged model", run_folder.MERGED),
        ("report", run_folder.REPORT_HTML),
    ):
        if (directory / path).exists():
            yield name, str(directory / path)
    if (directory / run_folder.RUNS).is_dir():
        yield "TensorBoard", f"tensorboard --logdir {directory / run_folder.RUNS}"
    if archived and archived.archive:
        archive = archived.archive
        yield "archive", f"{archive.uri}  ({archive.files} files, {archive.bytes / 1e6:,.1f} MB)"
