"""How the rows of a data set are read: the part of ``spec.dataset`` that formats heed."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field, StringConstraints

from dporun_api.document import Document, Finite


class DatasetFormat(StrEnum):
    """Formats of preference data."""

    PREFERENCE = "Preference"
    TRANSCRIPT = "Transcript"
    SHAREGPT = "ShareGPT"
    ALPACA = "Alpaca"
    QUESTION = "Question"
    CHOSEN_MESSAGES = "ChosenMessages"
    CANDIDATES = "Candidates"


ColumnName = Annotated[str, StringConstraints(min_length=1, max_length=128)]


class Columns(Document):
    """Names that columns have in the data, where they are others than those of its format."""

    prompt: ColumnName | None = Field(None, examples=["question"])
    """The prompt: text, or chat messages."""
    chosen: ColumnName | None = Field(None, examples=["response_j"])
    """The preferred response."""
    rejected: ColumnName | None = Field(None, examples=["response_k"])
    """The other response."""
    system: ColumnName | None = Field(None, examples=["system_prompt"])
    """A system text, put before the messages of the prompt."""
    messages: ColumnName | None = Field(None, examples=["dialogue"])
    """The conversation up to the two responses."""
    tools: ColumnName | None = Field(None, examples=["functions"])
    """Definitions of tools, or JSON of them, for the chat template."""


class Transcripts(StrEnum):
    """What becomes of conversations written as text."""

    TURNS = "Turns"
    KEEP = "Keep"


class CandidatePairs(StrEnum):
    """Which of several scored or ranked responses to a prompt are paired."""

    BEST_WORST = "BestWorst"
    ALL = "All"


class Candidates(Document):
    """What becomes of several scored or ranked responses to a prompt."""

    pairs: CandidatePairs = CandidatePairs.BEST_WORST
    """Pair the best with the worst, or every two of which one is better."""
    min_margin: Finite = Field(0, ge=0, le=1000000, examples=[1.0])
    """Least difference of score or rank between the two. Those of the same score or rank are never paired."""
