"""Which format the rows of a source have: by its first rows, or as the user says."""

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from dporun_api.row_formats import Candidates, Columns, DatasetFormat, Transcripts
from dporun_api.run_config import Dataset
from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer.data.formats import candidates, preference, transcript, unfit
from dporun_trainer.data.formats.assemble import NO_PROMPT
from dporun_trainer.data.pairs import Pair, RowError
from dporun_trainer.data.rows import Row
from dporun_trainer.errors import RunError

LOOKED_AT = 100
"""Rows at the beginning of a source that decide its format."""


@dataclass(frozen=True)
class Options:
    """What the user says about the rows (``spec.dataset``).

    Attributes:
        format: of the rows; recognised when None.
        columns: other names of columns.
        transcripts: what becomes of conversations written as text.
        candidates: what becomes of several responses to a prompt.

    """

    format: DatasetFormat | None = None
    columns: Columns = field(default_factory=Columns)
    transcripts: Transcripts = Transcripts.TURNS
    candidates: Candidates = field(default_factory=Candidates)

    @classmethod
    def of(cls, dataset: Dataset) -> Self:
        """Those of a run."""
        return cls(dataset.format, dataset.columns, dataset.transcripts, dataset.candidates)


@dataclass(frozen=True)
class Format:
    """A format of rows, and how a row of it becomes pairs.

    Attributes:
        name: in the API.
        title: in words: a source is "read as TITLE".
        options: what the user said.

    """

    name: DatasetFormat
    title: str
    options: Options
    _convert: Callable[[Row, Options], list[Pair]]

    def pairs(self, row: Row) -> list[Pair]:
        """Understand a row.

        Raises:
            RowError: it cannot be used; the message says why, in words that many rows share.
            RowSkipped: there is nothing wrong with it, but no preference in it.

        """
        if row.error:
            raise RowError(row.error)
        return self._convert(_renamed(row, self.options.columns), self.options)


@dataclass(frozen=True)
class _Known:
    """A format that can be recognised: ``fits`` looks at the columns of one row."""

    name: DatasetFormat
    title: str
    fits: Callable[[Mapping[str, Any]], bool]
    convert: Callable[[Row, Options], list[Pair]]


def _one(convert: Callable[[Row], Pair]) -> Callable[[Row, Options], list[Pair]]:
    return lambda row, _: [convert(row)]


def _transcript(row: Row, options: Options) -> list[Pair]:
    pair = transcript.from_transcript(row)
    return [transcript.as_text(pair) if options.transcripts is Transcripts.KEEP else pair]


def _candidates(row: Row, options: Options) -> list[Pair]:
    return candidates.from_candidates(row, options.candidates)


_KNOWN = (
    _Known(DatasetFormat.CANDIDATES, "scored or ranked candidates", candidates.is_candidates, _candidates),
    _Known(
        DatasetFormat.CHOSEN_MESSAGES,
        "pairs of chosen_messages and rejected_messages",
        preference.is_whole,
        _one(preference.from_whole),
    ),
    _Known(DatasetFormat.SHAREGPT, "ShareGPT pairs", preference.is_sharegpt, _one(preference.from_sharegpt)),
    _Known(DatasetFormat.TRANSCRIPT, "pairs of Human/Assistant transcripts", transcript.is_transcript, _transcript),
    _Known(DatasetFormat.ALPACA, "Alpaca pairs", preference.is_alpaca, _one(preference.from_alpaca)),
    _Known(
        DatasetFormat.QUESTION,
        "questions with a chosen and a rejected answer",
        preference.is_question,
        _one(preference.from_question),
    ),
    _Known(
        DatasetFormat.PREFERENCE, "TRL preference pairs", preference.is_preference, _one(preference.from_preference)
    ),
)
"""From the most special to the most general: the first one that fits a row is its format."""


def recognise(rows: Sequence[Row], options: Options = Options()) -> Format:
    """Decide the format of a source.

    That of most of its first rows, each of which has the first format that fits it; the one that the user fixes is
    taken as it is. Rows that cannot be read do not count. One row with a system text makes the text pairs beside it
    questions, too: as text they would lose it.

    Args:
        rows: the first ones (LOOKED_AT).
        options: what the user says about them.

    Raises:
        RunError: a column that the user names is in none of the rows, or no format fits any of them, or another column
            seems to be their prompt.

    """
    readable = [row for row in rows if row.error is None]
    _require_columns(readable, options.columns)
    fixed = options.format
    if fixed is None:
        renamed = [_renamed(row, options.columns) for row in readable]
        fits = _formats(renamed)
        if readable and not fits:
            unfit.refuse(renamed)
        # Where no row can be read, each says why, whatever the format.
        fixed = max(fits, key=lambda name: fits[name]) if fits else DatasetFormat.PREFERENCE
    known = next(known for known in _KNOWN if known.name is fixed)
    form = Format(known.name, known.title, options, known.convert)
    if fixed is DatasetFormat.PREFERENCE:
        if options.format is None:
            unfit.refuse_unread_prompt(renamed)
        unfit.refuse_promptless(readable, sum(_lacks_prompt(form, row) for row in readable))
    return form


def recognise_first(rows: Iterable[Row], options: Options) -> tuple[Format, Iterator[Row]]:
    """Decide the format of a stream of rows; returns it and the whole stream, from its first row."""
    stream = iter(rows)
    first = list(itertools.islice(stream, LOOKED_AT))
    return recognise(first, options), itertools.chain(first, stream)


def _formats(rows: Sequence[Row]) -> Counter[DatasetFormat]:
    """How many rows each format fits first."""
    fits = [(row, known.name) for row in rows if (known := _fitting(row.columns))]
    asked = any(name is DatasetFormat.QUESTION and preference.has_system(row.columns) for row, name in fits)
    return Counter(
        DatasetFormat.QUESTION
        if asked and name is DatasetFormat.PREFERENCE and preference.has_text_prompt(row.columns)
        else name
        for row, name in fits
    )


def _fitting(columns: Mapping[str, Any]) -> _Known | None:
    return next((known for known in _KNOWN if known.fits(columns)), None)


def _lacks_prompt(form: Format, row: Row) -> bool:
    try:
        form.pairs(row)
    except RowError as error:
        return str(error) == NO_PROMPT
    return False


def _names(columns: Columns) -> dict[str, str]:
    """Names in the data by the names that formats know."""
    names = {
        "prompt": columns.prompt,
        "chosen": columns.chosen,
        "rejected": columns.rejected,
        "system": columns.system,
        "messages": columns.messages,
        "tools": columns.tools,
    }
    return {ours: theirs for ours, theirs in names.items() if theirs is not None}


def _renamed(row: Row, columns: Columns) -> Row:
    """The row under the names that formats know; what had such a name before is gone."""
    names = _names(columns)
    if not names:
        return row
    others = {name: value for name, value in row.columns.items() if name not in names.values()}
    found = {ours: row.columns[theirs] for ours, theirs in names.items() if theirs in row.columns}
    return Row(row.file, row.number, {**others, **found})


def _require_columns(rows: Sequence[Row], columns: Columns) -> None:
    there = sorted({name for row in rows for name in row.columns})
    for ours, theirs in _names(columns).items():
        if rows and theirs not in there:
            raise RunError(
                Reason.DATASET_INVALID,
                f"{rows[0].file} has no column {theirs}, which dataset.columns.{ours} names",
                hint=f"Its columns are {', '.join(there) or 'none'}.",
            )
