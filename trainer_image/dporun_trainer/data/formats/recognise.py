"""Which format the rows of a source have: by its first rows, or as the user says."""

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from dporun_api.run_config import Columns, Dataset, DatasetFormat
from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer.data.formats import preference
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

    """

    format: DatasetFormat | None = None
    columns: Columns = field(default_factory=Columns)

    @classmethod
    def of(cls, dataset: Dataset) -> Self:
        """Those of a run."""
        return cls(dataset.format, dataset.columns)


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
    _convert: Callable[[Row], list[Pair]]

    def pairs(self, row: Row) -> list[Pair]:
        """Understand a row.

        Raises:
            RowError: it cannot be used; the message says why, in words that many rows share.

        """
        if row.error:
            raise RowError(row.error)
        return self._convert(_renamed(row, self.options.columns))


@dataclass(frozen=True)
class _Known:
    """A format that can be recognised: ``fits`` looks at the columns of one row."""

    name: DatasetFormat
    title: str
    fits: Callable[[Mapping[str, Any]], bool]
    convert: Callable[[Row], list[Pair]]


def _is_preference(columns: Mapping[str, Any]) -> bool:
    return "chosen" in columns and "rejected" in columns


_KNOWN = (
    _Known(
        DatasetFormat.PREFERENCE,
        "preference pairs (chosen and rejected)",
        _is_preference,
        lambda row: [preference.to_pair(row)],
    ),
)
"""From the most special to the most general: the first one that fits a row is its format."""


def recognise(rows: Sequence[Row], options: Options = Options()) -> Format:
    """Decide the format of a source.

    That of most of its first rows, each of which has the first format that fits it; the one that the user fixes is
    taken as it is. Rows that cannot be read do not count.

    Args:
        rows: the first ones (LOOKED_AT).
        options: what the user says about them.

    Raises:
        RunError: a column that the user names is in none of the rows, or no format fits any of them.

    """
    readable = [row for row in rows if row.error is None]
    _require_columns(readable, options.columns)
    fixed = options.format
    if fixed is None:
        fits = Counter(known.name for row in readable if (known := _fitting(row, options.columns)))
        # Nothing fits: as the most general format, each row says what it lacks.
        fixed = max(fits, key=lambda name: fits[name]) if fits else DatasetFormat.PREFERENCE
    known = next(known for known in _KNOWN if known.name is fixed)
    return Format(known.name, known.title, options, known.convert)


def recognise_first(rows: Iterable[Row], options: Options) -> tuple[Format, Iterator[Row]]:
    """Decide the format of a stream of rows; returns it and the whole stream, from its first row."""
    stream = iter(rows)
    first = list(itertools.islice(stream, LOOKED_AT))
    return recognise(first, options), itertools.chain(first, stream)


def _fitting(row: Row, columns: Columns) -> _Known | None:
    values = _renamed(row, columns).columns
    return next((known for known in _KNOWN if known.fits(values)), None)


def _names(columns: Columns) -> dict[str, str]:
    """Names in the data by the names that formats know."""
    names = {"prompt": columns.prompt, "chosen": columns.chosen, "rejected": columns.rejected}
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
