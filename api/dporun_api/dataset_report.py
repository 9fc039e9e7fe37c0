"""dataset_report.json: what the data of a run turned out to be, and every row that was left out."""

from enum import StrEnum
from typing import Literal

from pydantic import Field

from dporun_api.document import Document, Finite
from dporun_api.results import Failure


class DropReason(StrEnum):
    """Why a row, or one pair of it, was left out."""

    INVALID = "Invalid"
    OVERLONG = "Overlong"
    IDENTICAL_RESPONSES = "IdenticalResponses"
    CONTRADICTION = "Contradiction"
    DUPLICATE = "Duplicate"
    NEAR_DUPLICATE = "NearDuplicate"
    LEAK = "Leak"


class DroppedRow(Document):
    """A row that was left out, or a pair of it."""

    file: str
    """Its file, as the source names it."""
    row: int = Field(ge=1)
    """Its number there, from 1; in JSONL the line."""
    reason: DropReason
    detail: str = ""
    """What is wrong with it, or which row it repeats."""


class Sample(Document):
    """A pair as training gets it; each text is a string or a list of messages, cut where it is long."""

    file: str
    row: int = Field(ge=1)
    prompt: str | tuple[dict[str, object], ...]
    chosen: str | tuple[dict[str, object], ...]
    rejected: str | tuple[dict[str, object], ...]


class Histogram(Document):
    """How many rows are how long."""

    width: int = Field(ge=1)
    """Width of a bar: bar i counts lengths from i times width on, up to those of the next bar."""
    counts: tuple[int, ...] = Field(min_length=1)
    """Rows of each bar; the last one counts all that are longer, too."""


class Lengths(Document):
    """Distribution of a length over the rows."""

    mean: Finite = Field(ge=0)
    p50: int = Field(ge=0)
    p90: int = Field(ge=0)
    p99: int = Field(ge=0)
    maximum: int = Field(ge=0)
    histogram: Histogram = Histogram(width=1, counts=(0,))
    """Of no rows in what the first version prepared."""


class ScoreFacts(Document):
    """Scores that somebody gave the responses."""

    pairs: int = Field(ge=1)
    """Pairs with scores of both responses."""
    mean_margin: Finite
    """Score of the chosen response minus that of the rejected one, on average."""
    ties: int = Field(ge=0)
    """Pairs whose responses have the same score."""
    reversed: int = Field(ge=0)
    """Pairs whose rejected response has the higher score."""


class DataFacts(Document):
    """What one source of preference pairs turned out to hold."""

    source: str
    """Its URI."""
    files: tuple[str, ...] = ()
    """Files that were read, at most 20 of them."""
    format: str = ""
    """What the rows were read as."""
    rows: int = Field(0, ge=0)
    """Rows read."""
    pairs: int = Field(0, ge=0)
    """Pairs read: a row may hold several."""
    kept: int = Field(0, ge=0)
    """Pairs that training or validation gets."""
    dropped: dict[DropReason, int] = Field({})
    """Rows or pairs left out, by reason."""
    prompts: int = Field(0, ge=0)
    """Distinct prompts of the pairs kept."""
    conversational: bool = False
    """Whether the rows are chat messages rather than text."""
    implicit_prompts: int = Field(0, ge=0)
    """Rows whose prompt was taken from what chosen and rejected have in common."""
    duplicates: int = Field(0, ge=0)
    """Pairs that repeat an earlier pair."""
    near_duplicates: int = Field(0, ge=0)
    """Pairs that nearly repeat an earlier pair."""
    contradictions: int = Field(0, ge=0)
    """Pairs that are there in both orders, both of them counted."""
    truncated_prompts: int = Field(0, ge=0)
    """Pairs of which the prompt lost its beginning (dataset.overlong: TruncatePrompt)."""
    truncated: int = Field(0, ge=0)
    """Rows of which dpo.maxLength cuts at least one response."""
    alike_when_truncated: int = Field(0, ge=0)
    """Rows whose responses are the same once cut, so that nothing can be learned from them."""
    boundary_mismatches: int = Field(0, ge=0)
    """Rows whose tokenized prompt is not a prefix of the tokenized prompt plus response."""
    boundary_tokens: int = Field(0, ge=0)
    """Most tokens that such a prompt loses at its end."""
    scores: ScoreFacts | None = None
    """Absent where the rows have no scores."""
    unit: str = "tokens"
    """What lengths are counted in: tokens, or characters where no model is known."""
    chosen_longer: Finite = Field(0, ge=0, le=1)
    """Share of rows whose chosen response is longer than the rejected one; ties count one half."""
    prompt: Lengths | None = None
    """Of the prompts."""
    chosen: Lengths | None = None
    """Of the chosen responses."""
    rejected: Lengths | None = None
    """Of the rejected responses."""
    total: Lengths | None = None
    """Of the prompts with the longer response, before truncation."""


class SourceReport(Document):
    """One source: what it holds, what was left out of it, and what it looks like."""

    facts: DataFacts
    dropped: tuple[DroppedRow, ...] = ()
    """Every row, or pair of a row, that was left out."""
    samples: tuple[Sample, ...] = ()
    """A few pairs, spread over the source."""


class DatasetReport(Document):
    """What the data turned out to be; ``dataset_report.json``."""

    version: Literal[1] = 1
    train: SourceReport
    validation: SourceReport | None = None
    """Absent when the validation pairs were held out of the training data."""
    train_pairs: int = Field(0, ge=0)
    """Pairs that training gets."""
    validation_pairs: int = Field(0, ge=0)
    """Pairs that validation gets."""
    leaked_prompts: int = Field(0, ge=0)
    """Distinct prompts that are in both the training and the validation data, before any are left out."""
    near_leaked_prompts: int = Field(0, ge=0)
    """Distinct validation prompts that are nearly in the training data."""
    warnings: tuple[str, ...] = ()
    """What looks wrong, the most harmful first."""
    max_length: int | None = Field(None, ge=1)
    """dpo.maxLength, in tokens; absent where no model is known, so that nothing is cut."""
    refused: Failure | None = None
    """Why a run with this data ends here; absent where one may go on."""
