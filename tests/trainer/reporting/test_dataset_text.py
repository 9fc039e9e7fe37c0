"""A dataset report on terminals of several widths."""

import io

import pytest
from rich.console import Console

from dporun_api.dataset_report import DatasetReport, DropReason, Histogram, Lengths, Sample
from dporun_testing.dataset_reports import RESPONSES, a_report, dropped, some_facts
from dporun_trainer.reporting.dataset_text import histogram, text


def shown(report: DatasetReport, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False)
    console.print(text(report))
    return console.file.getvalue()  # type: ignore[attr-defined]


FULL = a_report(
    source="hf://owner/a-name-of-a-repository-that-is-long-and-has-no-blank-to-break-it-at?split=train",
    validation=some_facts(source="s3://bucket/validation.jsonl"),
    leaked_prompts=3,
    contradictions=2,
    warnings=("a warning of many words " * 8,),
    dropped_rows=tuple(row for kind in range(12) for row in dropped(DropReason.INVALID, 1, detail=f"kind {kind}")),
    samples=(Sample(file="a.jsonl", row=1, prompt="日本の首都はどこですか" * 30, chosen="a" * 500, rejected=""),) * 3,
)


@pytest.mark.parametrize("width", [40, 80, 120])
def test_every_line_fits(width: int) -> None:
    from rich.cells import cell_len

    assert max(map(cell_len, shown(FULL, width).splitlines())) <= width


def test_everything_is_there() -> None:
    said = " ".join(shown(FULL, 120).split())
    for part in (
        "Prompts in both 3",
        "Lengths in tokens, validation",
        "1 kind 0 (training: row 1 of train.jsonl)",
        "and 2 more kinds",
        "• a warning of many words",
        "dataset.contradictions to Drop",
        "row 1 of a.jsonl",
    ):
        assert part in said
    assert said.count("row 1 of a.jsonl") == 2, "two samples are enough"


def test_a_histogram_is_one_short_line() -> None:
    bars, width = histogram(RESPONSES)
    assert width == 100, "two bars of 50 in one"
    assert len(bars) == 21
    few = Lengths(mean=1, p50=1, p90=2, p99=2, maximum=2, histogram=Histogram(width=1, counts=(8, 0, 1)))
    assert histogram(few) == ("█ ▁", 1)


def test_histograms_of_responses_have_the_same_bars() -> None:
    short = Lengths(mean=60, p50=60, p90=90, p99=99, maximum=99, histogram=Histogram(width=50, counts=(1, 2, 3)))
    assert histogram(short, [RESPONSES])[1] == histogram(RESPONSES, [short])[1] == 100


def test_a_histogram_fits_into_80_columns() -> None:
    for bars in range(1, 42):
        drawn = Histogram(width=50_000, counts=(1,) * bars)
        longest = Lengths(mean=1, p50=100_000, p90=1_000_000, p99=1_000_000, maximum=9_000_000, histogram=drawn)
        said = shown(a_report(prompt=longest, chosen=longest, rejected=longest)).splitlines()
        start = next(at for at, line in enumerate(said) if line.startswith("Lengths"))
        assert [line.split()[0] for line in said[start + 2 : start + 5]] == ["prompt", "chosen", "rejected"]


def test_what_is_zero_is_not_a_fact_to_tell() -> None:
    said = shown(a_report())
    for name in ("Repeated pairs", "Contradicting pairs", "Left out", "Cut to maxLength"):
        assert name not in said
