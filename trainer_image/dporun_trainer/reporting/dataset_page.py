"""dataset.html: what the data turned out to be, drawn and with samples, in one file that loads nothing."""

from collections.abc import Iterator
from pathlib import Path

from dporun_api.dataset_report import DatasetReport, SourceReport
from dporun_api.files import write_text
from dporun_trainer.reporting.dataset_remedies import remedies
from dporun_trainer.reporting.dataset_words import drops, facts, headline, sources
from dporun_trainer.reporting.first_screen import Tile
from dporun_trainer.reporting.histograms import Bars
from dporun_trainer.reporting.messages import turns
from dporun_trainer.reporting.numbers import percent
from dporun_trainer.reporting.pages import page

SHOWN_SAMPLES = 3
"""Samples of a source that are shown; a click unfolds the others."""
SHOWN_DROPS = 50
MAX_TEXT = 2000
"""Characters of one text."""


def write_dataset_page(path: Path, report: DatasetReport) -> None:
    """Write the page; the same report gives the same bytes.

    Raises:
        OSError: it cannot be written.

    """
    write_text(path, render(report))


def render(report: DatasetReport) -> str:
    """Render the page."""
    return page(
        "dataset.html.j2",
        report=report,
        head=headline(report),
        tiles=list(_tiles(report)),
        remedies=list(remedies(report)),
        sides=sources(report),
        charts={side: list(_charts(source, report.max_length)) for side, source in sources(report).items()},
        drops=drops(report),
        shown_drops=SHOWN_DROPS,
        facts=list(facts(report)),
        turns=turns,
        shown=SHOWN_SAMPLES,
        max_text=MAX_TEXT,
    )


def _tiles(report: DatasetReport) -> Iterator[Tile]:
    sides = [source.facts for source in sources(report).values()]
    rows = sum(side.rows for side in sides)
    yield Tile("Rows read", f"{rows:,}", f"{report.train_pairs:,} + {report.validation_pairs:,} pairs used")
    dropped = sum(sum(side.dropped.values()) for side in sides)
    yield Tile("Left out", f"{dropped:,}", percent(dropped / rows) if rows else "")
    repeated = sum(side.duplicates for side in sides)
    near = sum(side.near_duplicates for side in sides)
    yield Tile("Repeated pairs", f"{repeated:,}", f"{near:,} more nearly")
    contradicting = sum(side.contradictions for side in sides)
    yield Tile("Contradicting pairs", f"{contradicting:,}", "there in both orders")
    if report.validation is not None:
        yield Tile("Leaked prompts", f"{report.leaked_prompts:,}", f"{report.near_leaked_prompts:,} more nearly")
    if report.train.facts.chosen is not None:
        yield Tile("Chosen is longer", percent(report.train.facts.chosen_longer), "of the training pairs; 50 % is even")


def _charts(source: SourceReport, limit: int | None) -> Iterator[Bars]:
    facts = source.facts
    if facts.prompt:
        yield Bars("Prompts", facts.unit, {"prompt": facts.prompt}, ("c1",))
    if facts.chosen and facts.rejected:
        responses = {"chosen": facts.chosen, "rejected": facts.rejected}
        yield Bars("Responses", facts.unit, responses, ("c3", "c4"))
    if facts.total:
        whole = {"prompt and response": facts.total}
        yield Bars("Prompts with the longer response", facts.unit, whole, ("c1",), limit)
