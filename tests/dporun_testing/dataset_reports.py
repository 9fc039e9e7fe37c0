"""Dataset reports as prepare and ``dporun data`` write them, without any data."""

from typing import Any

from dporun_api.dataset_report import (
    DataFacts,
    DatasetReport,
    DroppedRow,
    DropReason,
    Histogram,
    Lengths,
    Sample,
    SourceReport,
)

PROMPTS = Lengths(
    mean=30, p50=25, p90=60, p99=90, maximum=96, histogram=Histogram(width=10, counts=(10, 40, 0, 30, 20))
)
RESPONSES = Lengths(
    mean=300, p50=250, p90=700, p99=1900, maximum=9000, histogram=Histogram(width=50, counts=(*range(60, 20, -1), 80))
)
SAMPLE = Sample(
    file="train.jsonl",
    row=17,
    prompt=({"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is 2 + 2?"}),
    chosen=({"role": "assistant", "content": "4"},),
    rejected=({"role": "assistant", "content": "5"},),
)


def some_facts(**changes: Any) -> DataFacts:
    """What a source of 1,000 chat messages holds; ``changes`` replace fields."""
    facts = DataFacts(
        source="s3://bucket/train.jsonl", files=("train.jsonl",), format="TRL preference pairs", rows=1000, pairs=1000,
        kept=1000, prompts=990, conversational=True, chosen_longer=0.6, prompt=PROMPTS, chosen=RESPONSES,
        rejected=RESPONSES, total=RESPONSES,
    )  # fmt: skip
    return facts.model_copy(update=changes)


def dropped(reason: DropReason, *rows: int, detail: str = "") -> tuple[DroppedRow, ...]:
    """Rows of train.jsonl that were left out."""
    return tuple(DroppedRow(file="train.jsonl", row=row, reason=reason, detail=detail) for row in rows)


def a_report(*, validation: DataFacts | None = None, **changes: Any) -> DatasetReport:
    """A report of data with which nothing is wrong; ``changes`` replace fields, those of its training data too."""
    fields = {name: changes.pop(name) for name in list(changes) if name in DatasetReport.model_fields}
    rows = changes.pop("dropped_rows", ())
    samples = changes.pop("samples", (SAMPLE,))
    if rows:
        changes["dropped"] = {
            reason: sum(row.reason is reason for row in rows) for reason in {row.reason for row in rows}
        }
    report = DatasetReport(
        train=SourceReport(facts=some_facts(**changes), dropped=rows, samples=samples),
        validation=None if validation is None else SourceReport(facts=validation),
        train_pairs=900,
        validation_pairs=100,
        max_length=1024,
    )
    return report.model_copy(update=fields)
