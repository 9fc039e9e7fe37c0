"""What a dataset report says, in words: for its page, for the terminal and for the report of a run. Pure."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from dporun_api.dataset_report import DataFacts, DatasetReport, DroppedRow, DropReason, SourceReport
from dporun_trainer.reporting.numbers import DASH, percent

REASONS = {
    DropReason.INVALID: "cannot be used",
    DropReason.OVERLONG: "prompt leaves no room for a response",
    DropReason.IDENTICAL_RESPONSES: "responses are the same once cut",
    DropReason.CONTRADICTION: "there in both orders",
    DropReason.DUPLICATE: "repeats an earlier pair",
    DropReason.NEAR_DUPLICATE: "nearly repeats an earlier pair",
    DropReason.LEAK: "prompt is in validation, too",
}
NAMED_ROWS = 5
"""Rows with the same defect that are named."""


@dataclass(frozen=True)
class Headline:
    """What a reader sees first; ``tone`` is good, fair or poor and decides the colour."""

    tone: str
    title: str
    text: str


@dataclass(frozen=True)
class Drop:
    """Rows of one source that were left out for the same reason."""

    source: str
    reason: str
    count: int
    rows: str


def sources(report: DatasetReport) -> dict[str, SourceReport]:
    """The sources that were read, by their side."""
    sides = {"training": report.train, "validation": report.validation}
    return {side: source for side, source in sides.items() if source is not None}


def headline(report: DatasetReport) -> Headline:
    """Say in a few words whether a run could use the data."""
    if report.refused is not None:
        return Headline("poor", "Refused", report.refused.message)
    dropped = sum(sum(source.facts.dropped.values()) for source in sources(report).values())
    used = f"{report.train_pairs:,} pairs for training, {report.validation_pairs:,} for validation"
    left_out = f", {dropped:,} left out" if dropped else ""
    count = len(report.warnings)
    warned = {0: "", 1: "; one warning"}.get(count, f"; {count} warnings")
    return Headline("fair" if count or dropped else "good", "Fit for training", f"{used}{left_out}{warned}.")


def facts(report: DatasetReport) -> Iterator[tuple[str, str, str]]:
    """Rows of a table: name, value in training, value in validation; what is 0 everywhere is left out."""
    train, held_out = report.train.facts, report.validation.facts if report.validation else None

    def both(name: str, show: Callable[[DataFacts], str]) -> tuple[str, str, str]:
        return name, show(train), show(held_out) if held_out else ""

    def counted(name: str, count: Callable[[DataFacts], int]) -> Iterator[tuple[str, str, str]]:
        if count(train) or (held_out is not None and count(held_out)):
            yield both(name, lambda side: f"{count(side):,}")

    if report.refused is None:
        yield "Pairs used", f"{report.train_pairs:,}", f"{report.validation_pairs:,}"
    yield "Source", train.source, held_out.source if held_out else "held out of the training data"
    if train.format:
        yield both("Read as", lambda side: f"{side.format}, {'chat messages' if side.conversational else 'text'}")
    yield both("Rows read", lambda side: f"{side.rows:,}")
    if any(side.pairs not in {0, side.rows} for side in (train, held_out) if side):
        yield both("Pairs read", lambda side: f"{side.pairs:,}")
    yield from counted("Left out", lambda side: sum(side.dropped.values()))
    yield from counted("Distinct prompts", lambda side: side.prompts)
    yield from counted("Prompt found in the responses", lambda side: side.implicit_prompts)
    yield from counted("Repeated pairs", lambda side: side.duplicates)
    yield from counted("Nearly repeated pairs", lambda side: side.near_duplicates)
    yield from counted("Contradicting pairs", lambda side: side.contradictions)
    yield from counted("Cut to maxLength", lambda side: side.truncated)
    yield from counted("The same once cut", lambda side: side.alike_when_truncated)
    yield from counted("Prompt ends in other tokens", lambda side: side.boundary_mismatches)
    if train.chosen:
        yield both("Chosen is longer", lambda side: percent(side.chosen_longer) if side.chosen else DASH)
    if held_out is not None:
        yield "Prompts in both", f"{report.leaked_prompts:,}", ""
        yield "Prompts nearly in both", f"{report.near_leaked_prompts:,}", ""


def drops(report: DatasetReport) -> list[Drop]:
    """What was left out, by source and reason, the most frequent first."""
    found = []
    for side, source in sources(report).items():
        groups: dict[str, list[DroppedRow]] = {}
        for row in source.dropped:
            what = row.detail if row.reason is DropReason.INVALID and row.detail else REASONS[row.reason]
            groups.setdefault(what, []).append(row)
        found += [Drop(side, what, len(rows), _places(rows)) for what, rows in groups.items()]
    return sorted(found, key=lambda drop: -drop.count)


def _places(rows: list[DroppedRow]) -> str:
    named = rows[:NAMED_ROWS]
    more = f" and {len(rows) - len(named):,} more" if len(rows) > len(named) else ""
    word = "row" if len(rows) == 1 else "rows"
    files = {row.file for row in named}
    if len(files) == 1:
        return f"{word} {', '.join(str(row.row) for row in named)}{more} of {files.pop()}"
    return f"{word} {', '.join(f'{row.row} of {row.file}' for row in named)}{more}"
