"""What a person sees while a run goes on: a live display on a terminal, plain lines elsewhere."""

import os
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from dporun_api.metrics import METRICS, Split
from dporun_api.pod import Command, ExitCode
from dporun_api.results import HealthState, Metrics, Outcome, Progress, Stage
from dporun_api.text import duration

HEALTH_STYLE = {
    HealthState.ON_TRACK: "green",
    HealthState.OVERFITTING: "yellow",
    HealthState.UNDERFITTING: "yellow",
    HealthState.UNSTABLE: "red",
    HealthState.CONFUSED: "red",
    HealthState.UNKNOWN: "dim",
}
MARKS = {ExitCode.OK: ("✓", "green"), ExitCode.PREEMPTED: ("‖", "yellow")}
PLAIN_SECONDS = 10.0
"""Between two plain lines of the same stage."""


class View(Protocol):
    """Shows how a run goes; gets every event in order."""

    def start(self, command: str) -> None:
        """A command starts."""

    def progress(self, progress: Progress | None) -> None:
        """Its newest progress; called a few times a second."""

    def finish(self, command: str, code: ExitCode, outcome: Outcome | None) -> None:
        """It ended."""

    def stopping(self) -> None:
        """The user asked to stop."""

    def note(self, text: str) -> None:
        """A remark for the user."""


def metrics(values: Metrics) -> list[tuple[str, str]]:
    """Name and formatted value of each known metric: first those of validation, then those of training alone."""
    shown: dict[str, tuple[str, str]] = {}
    for split in (Split.VALIDATION, Split.TRAINING):
        for metric in METRICS:
            field = metric.field(split)
            value = getattr(values, field) if field else None
            if field and metric.short and value is not None:
                shared = metric.training == metric.validation
                name = metric.short if shared else metric.short_of(split)
                shown.setdefault(field, (name, format(value, metric.format)))
    return list(shown.values())


def position(progress: Progress) -> str:
    """Where the command is: ``Training 62/120, epoch 1.03``, or what it does when it has no steps."""
    if progress.stage is Stage.TRAINING and progress.total_steps:
        return f"{progress.step}/{progress.total_steps} steps, epoch {progress.epoch:.2f}"
    return progress.detail or progress.stage.lower()


class PlainView:
    """One line whenever there is news, for logs and pipes."""

    def __init__(self, console: Console):
        self._console = console
        self._began = time.monotonic()
        self._printed: tuple[object, ...] = ()
        self._printed_at = 0.0

    def start(self, command: str) -> None:
        """Print that a command starts."""
        self._print(f"{command}: started")

    def progress(self, progress: Progress | None) -> None:
        """Print a new stage, validation or health at once, and other progress every few seconds."""
        if progress is None:
            return
        health = progress.health.state if progress.health else None
        news = (progress.stage, progress.metrics.eval_loss, health)
        step = (progress.step, progress.detail)
        now = time.monotonic()
        if news == self._printed[:3] and (step == self._printed[3:] or now - self._printed_at < PLAIN_SECONDS):
            return
        self._printed, self._printed_at = (*news, *step), now
        parts = [f"{progress.stage.lower()}:", position(progress)]
        if progress.percent:
            parts.append(f"{progress.percent:.0f}%")
        if progress.eta_seconds is not None:
            parts.append(f"ETA {duration(progress.eta_seconds)}")
        parts += [f"{name} {value}" for name, value in metrics(progress.metrics)[:3]]
        self._print("  ".join(part for part in [*parts, health or ""] if part))

    def finish(self, command: str, code: ExitCode, outcome: Outcome | None) -> None:
        """Print how a command ended."""
        self._print(f"{command}: {ending(code, outcome)}")

    def stopping(self) -> None:
        """Print that a checkpoint is being saved."""
        self._print("stopping: a checkpoint is being saved (interrupt again to end at once)")

    def note(self, text: str) -> None:
        """Print a remark."""
        self._print(text)

    def _print(self, text: str) -> None:
        self._console.print(f"{time.monotonic() - self._began:6.1f} s  {text}", markup=False, soft_wrap=True)


def ending(code: ExitCode, outcome: Outcome | None) -> str:
    """How a command ended, in a few words."""
    if code is ExitCode.OK:
        return outcome.message if outcome and outcome.message else "done"
    if code is ExitCode.PREEMPTED:
        return "stopped; run the same command again to continue"
    return f"failed ({outcome.failure.reason})" if outcome and outcome.failure else f"failed (exit code {int(code)})"


@dataclass
class _Row:
    began: float = field(default_factory=time.monotonic)
    seconds: float | None = None
    code: ExitCode | None = None
    text: str = ""


class LiveView:
    """A display that is redrawn a few times a second."""

    def __init__(self, title: str):
        self._title = title
        self._rows: dict[str, _Row] = {}
        self._progress: Progress | None = None
        self._notes: list[str] = []
        self._spinner = Spinner("dots", style="cyan")

    def start(self, command: str) -> None:
        """Draw ``command`` as running."""
        self._progress = None
        self._rows[command] = _Row()

    def progress(self, progress: Progress | None) -> None:
        """Draw its progress."""
        self._progress = progress

    def finish(self, command: str, code: ExitCode, outcome: Outcome | None) -> None:
        """Draw ``command`` as ended."""
        row = self._rows[command]
        row.seconds, row.code, row.text = time.monotonic() - row.began, code, ending(code, outcome)

    def stopping(self) -> None:
        """Show that a checkpoint is being saved."""
        self._notes = ["Stopping: a checkpoint is being saved. Ctrl-C again ends it at once."]

    def note(self, text: str) -> None:
        """Add a line at the bottom."""
        self._notes.append(text)

    def __rich__(self) -> RenderableType:
        """Draw everything."""
        table = Table.grid(padding=(0, 1))
        table.add_column(width=1)
        table.add_column(width=8)
        table.add_column(ratio=1)
        table.add_column(justify="right", style="dim")
        for command in Command:
            for line in self._lines(command):
                table.add_row(*line)
        parts: list[RenderableType] = [Text(self._title, style="bold"), table]
        parts += [Text(note, style="yellow") for note in self._notes]
        return Group(*parts)

    def _lines(self, command: str) -> Iterator[tuple[RenderableType, ...]]:
        row, name = self._rows.get(command), command.capitalize()
        if row is None:
            yield Text("·", style="dim"), Text(name, style="dim"), "", ""
            return
        if row.code is not None:
            mark, style = MARKS.get(row.code, ("✗", "red"))
            text = Text(row.text, overflow="ellipsis", no_wrap=True)
            yield Text(mark, style=style), name, text, duration(row.seconds or 0)
            return
        spent, progress = duration(time.monotonic() - row.began), self._progress
        if progress is None or not progress.percent:
            yield self._spinner, Text(name, style="bold"), self._state(progress) if progress else "", spent
            return
        yield self._spinner, Text(name, style="bold"), _bar(progress), spent
        yield "", "", self._facts(progress), ""
        yield "", "", self._state(progress), ""

    def _facts(self, progress: Progress) -> Text:
        text = Text(no_wrap=True, overflow="ellipsis")
        for name, value in metrics(progress.metrics):
            text.append(f"{name} ", style="dim").append(f"{value}  ")
        return text

    def _state(self, progress: Progress) -> Text:
        text = Text(position(progress), no_wrap=True, overflow="ellipsis", style="dim")
        if progress.best_checkpoint:
            text.append(f"  best at step {progress.best_checkpoint.step}", style="dim")
        if progress.health and progress.health.state is not HealthState.UNKNOWN:
            text.append("  ").append(progress.health.state, style=HEALTH_STYLE[progress.health.state])
        return text


def _bar(progress: Progress) -> RenderableType:
    grid = Table.grid(padding=(0, 1))
    eta = "" if progress.eta_seconds is None else f"ETA {duration(progress.eta_seconds)}"
    bar = ProgressBar(total=100, completed=progress.percent, width=30)
    grid.add_row(Text(f"{progress.stage:<10}"), bar, f"{progress.percent:3.0f}%", Text(eta, style="cyan"))
    return grid


@contextmanager
def shown(console: Console, title: str) -> Iterator[View]:
    """Yield the view that suits ``console``."""
    if not console.is_terminal:
        yield PlainView(console)
        return
    view = LiveView(title)
    with _quiet_terminal(), Live(view, console=console, refresh_per_second=8):
        yield view


@contextmanager
def _quiet_terminal() -> Iterator[None]:
    """Keep the terminal from echoing Ctrl-C into the display and from dropping what was being drawn just then."""
    terminal = sys.stdin.fileno() if sys.stdin.isatty() else None
    if terminal is None or os.tcgetpgrp(terminal) != os.getpgrp():
        yield
        return
    before = termios.tcgetattr(terminal)
    quiet = termios.tcgetattr(terminal)
    quiet[3] = (quiet[3] & ~termios.ECHOCTL) | termios.NOFLSH
    termios.tcsetattr(terminal, termios.TCSANOW, quiet)
    try:
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSANOW, before)
