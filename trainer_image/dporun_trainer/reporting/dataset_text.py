"""A dataset report on a terminal."""

from collections.abc import Iterable, Iterator

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from dporun_api.dataset_report import DatasetReport, Lengths, Sample
from dporun_trainer.reporting.dataset_remedies import remedies
from dporun_trainer.reporting.dataset_words import drops, facts, headline, sources
from dporun_trainer.reporting.messages import turns

SAMPLES = 2
SAMPLE_LETTERS = 300
"""Of each text of a sample; the page shows more."""
SHOWN_DROPS = 10
_BARS = "▁▂▃▄▅▆▇█"
_MOST_BARS = 24
"""On a terminal of 80 columns the numbers beside them need the rest."""
_COLOURS = {"good": "green", "fair": "yellow", "poor": "red"}


def text(report: DatasetReport) -> RenderableType:
    """Lay out a report.

    What comes from the data has no control characters: it cannot colour, move or hide anything.
    """
    head = headline(report)
    title = Text.assemble((head.title, f"bold {_COLOURS[head.tone]}"), "  ", plain(report.train.facts.source))
    parts: list[RenderableType] = [title, Text(plain(head.text))]
    if report.refused and report.refused.hint:
        parts.append(Text(plain(report.refused.hint), style="bold"))
    parts += [Text(), _facts(report)]
    for name, content in _sections(report):
        if content:
            parts += [Text(), Text(name, style="bold"), *(Padding(part, (0, 0, 0, 2)) for part in content)]
    return Group(*parts)


def _sections(report: DatasetReport) -> Iterator[tuple[str, list[RenderableType]]]:
    for side, source in sources(report).items():
        kinds = {kind: getattr(source.facts, kind) for kind in ("prompt", "chosen", "rejected")}
        drawn = {kind: lengths for kind, lengths in kinds.items() if lengths is not None}
        yield f"Lengths in {source.facts.unit}, {side}", [_histograms(drawn)] if drawn else []
    found = drops(report)
    left_out = [
        _rows((f"{drop.count:,}", f"{drop.reason} ({drop.source}: {drop.rows})") for drop in found[:SHOWN_DROPS])
    ]
    more = [Text(f"and {len(found) - SHOWN_DROPS} more kinds")] if len(found) > SHOWN_DROPS else []
    yield "Left out", [*left_out, *more] if found else []
    yield "Warnings", [_rows(("•", warning) for warning in report.warnings)] if report.warnings else []
    changes: list[RenderableType] = []
    for remedy in remedies(report):
        changes += [Text(remedy.change, style="cyan"), Padding(Text(plain(remedy.reason)), (0, 0, 0, 4))]
    yield "What to change", changes
    samples: list[RenderableType] = []
    for sample in report.train.samples[:SAMPLES]:
        samples += [Text(), _sample(sample)] if samples else [_sample(sample)]
    yield "Samples", samples


def histogram(lengths: Lengths, beside: Iterable[Lengths] = ()) -> tuple[str, int]:
    """Draw how many rows are how long in one short line: the line, and how much of a length a bar stands for.

    A bar of nothing is a blank; the last one stands for all that is longer, too. Those ``beside`` that have bars of the
    same width keep the same width here.
    """
    counts, width = lengths.histogram.counts, lengths.histogram.width
    alike = [one.histogram.counts for one in (lengths, *beside) if one.histogram.width == width]
    if max(map(len, alike)) > _MOST_BARS:
        counts, width = tuple(sum(counts[start : start + 2]) for start in range(0, len(counts), 2)), 2 * width
    highest = max(counts)
    return "".join(_BARS[(count * len(_BARS) - 1) // highest] if count else " " for count in counts), width


def plain(words: str) -> str:
    """A text on one line, without characters that a terminal would obey."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in words).split())


def _columns(*names: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name in names:
        table.add_column(name, overflow="fold")
    return table


def _facts(report: DatasetReport) -> Table:
    table = _columns("", "training", "validation")
    for row in facts(report):
        table.add_row(*(Text(plain(cell)) for cell in row))
    return table


def _histograms(drawn: dict[str, Lengths]) -> Table:
    table = _columns("", "", "a bar is", "median", "90 % up to", "longest")
    for column in table.columns[2:]:
        column.justify = "right"
    for kind, lengths in drawn.items():
        bars, width = histogram(lengths, drawn.values())
        table.add_row(kind, bars, *(f"{value:,}" for value in (width, lengths.p50, lengths.p90, lengths.maximum)))
    return table


def _rows(rows: Iterable[tuple[str, str]]) -> Table:
    """A narrow column on the right of which each text has its own margin."""
    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_column(justify="right", no_wrap=True)
    table.add_column(overflow="fold")
    for mark, words in rows:
        table.add_row(mark, Text(plain(words)))
    return table


def _sample(sample: Sample) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    table.add_row("row", Text(plain(f"{sample.row} of {sample.file}"), style="dim"))
    for kind in ("prompt", "chosen", "rejected"):
        for turn in turns(getattr(sample, kind)):
            words = plain(turn.text)
            cut = words if len(words) <= SAMPLE_LETTERS else f"{words[:SAMPLE_LETTERS]}…"
            spoken = kind == "prompt" or turn.role != "assistant"
            table.add_row(kind, Text(f"{plain(turn.role)}: {cut}" if turn.role and spoken else cut))
    return table
