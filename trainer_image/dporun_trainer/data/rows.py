"""Rows of data files, one at a time: JSON lines, a JSON array, Parquet, CSV."""

import csv
import io
import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer.data.kinds import BOM, Kind, head_of, kind_of, open_stream, separator
from dporun_trainer.errors import RunError

_BATCH = 256
"""Rows of Parquet that are in memory at a time."""
_CHUNK = 1 << 20
_SPACE = " \t\r\n"
_DECODER = json.JSONDecoder()
_LONGEST = 1 << 26
"""Characters of the longest row of an array, or cell of a table: a bracket or quote that is never closed ends here."""


@dataclass(frozen=True)
class Row:
    """A row of a file: its columns, or what is wrong with it as a whole.

    ``number`` counts from 1. In JSON lines it is the line; in CSV it is the row of a spreadsheet: row 1 has the names.
    """

    file: str
    number: int
    columns: dict[str, Any]
    error: str | None = None


@dataclass(frozen=True)
class RowFile:
    """A file of rows, or its rows from ``start`` to before ``stop``; ``name`` is for messages."""

    path: Path
    name: str
    start: int = 0
    stop: int | None = None

    def rows(self, seen: Callable[[int], None] = lambda _: None) -> Iterator[Row]:
        """Read them; see read_rows."""
        return itertools.islice(read_rows(self.path, self.name, seen), self.start, self.stop)


def count_rows(file: RowFile) -> int:
    """Count the rows of a whole file.

    Raises:
        RunError: the file as a whole cannot be read.

    """
    return sum(1 for _ in read_rows(file.path, file.name))


def read_rows(path: Path, name: str | None = None, seen: Callable[[int], None] = lambda _: None) -> Iterator[Row]:
    """Read the rows of ``path`` as a stream; a row that cannot be read is a Row with an error.

    Args:
        path: a file of one of the kinds in data/kinds.py, told by its content; ``.gz`` and ``.zst`` are unpacked.
        name: of the file, for messages.
        seen: gets now and then how many bytes of the file have been read.

    Raises:
        RunError: the file as a whole cannot be read.

    """
    name = name or path.name
    try:
        with path.open("rb") as raw:
            stream = open_stream(raw, name)
            kind = kind_of(head_of(stream), name)
            if kind is Kind.PARQUET:
                yield from _parquet(path, name, seen)
                return
            rows = {Kind.LINES: _lines, Kind.ARRAY: _array, Kind.TABLE: _table}[kind](stream, name)
            for count, row in enumerate(rows):
                if count % _BATCH == 0:
                    seen(raw.tell())
                yield row
    except (OSError, EOFError) as error:
        raise _unreadable(name, f"cannot be read: {error}") from error


def _lines(stream: IO[bytes], name: str) -> Iterator[Row]:
    for number, line in enumerate(stream, 1):
        text = line.removeprefix(BOM) if number == 1 else line
        if not text.strip():
            continue
        if number == 1 and text.strip() == b"{":
            raise _unreadable(
                name, "has JSON objects over several lines", "Write each in one line, or all in one array: [{…}, {…}]."
            )
        try:
            value = json.loads(text)
        except ValueError as error:  # of UnicodeDecodeError and JSONDecodeError alike
            why = f" ({error.msg})" if isinstance(error, json.JSONDecodeError) else ""
            yield Row(name, number, {}, f"something that is not JSON in UTF-8{why}")
        else:
            yield _row(name, number, value)


def _array(stream: io.BufferedReader, name: str) -> Iterator[Row]:
    """Read a JSON array one value at a time: memory holds one, and what was read ahead."""
    text = io.TextIOWrapper(stream, encoding="utf-8-sig")
    buffer, at, number, wanted = "", 0, 0, "["
    while True:
        while buffer[at : at + 1] and buffer[at] in _SPACE:
            at += 1
        if at == len(buffer):
            buffer, at = _read(text, name, number), 0
            if not buffer:
                raise _unreadable(name, f"is no whole JSON array: it ends after row {number}")
        elif buffer[at] == "]" and (wanted == "," or (wanted == "" and number == 0)):
            if buffer[at + 1 :].strip(_SPACE) or _read(text, name, number).strip(_SPACE):
                raise _unreadable(name, f"has more after the end of its array of {number} rows")
            return
        elif wanted:
            if buffer[at] != wanted:
                raise _unreadable(name, f"is no JSON array: {buffer[at]!r} after row {number}, not {wanted!r} or ']'")
            at, wanted = at + 1, ""
        else:
            number += 1
            value, buffer, at = _value(buffer, at, text, name, number)
            wanted = ","
            yield _row(name, number, value)


def _value(buffer: str, at: int, text: IO[str], name: str, number: int) -> tuple[object, str, int]:
    """Decode the value at ``at`` of ``buffer``, reading on until it is whole: (value, buffer, its end there)."""
    while True:
        error = None
        try:
            value, end = _DECODER.raw_decode(buffer, at)
            if end < len(buffer):  # else a number may go on
                return value, buffer, end
        except json.JSONDecodeError as found:
            error = found
            torn = found.msg.startswith("Unterminated") or found.pos > len(buffer) - 16
            if not torn or len(buffer) - at > _LONGEST:
                break
        more = _read(text, name, number, max(_CHUNK, len(buffer) - at))
        if not more:
            break
        buffer, at = buffer[at:] + more, 0
    if error is None or error.pos >= len(buffer) or error.msg.startswith("Unterminated"):
        raise _unreadable(name, f"is no whole JSON array: it ends within row {number}") from error
    raise _unreadable(name, f"is not JSON in UTF-8: row {number}: {error.msg}") from error


def _read(text: IO[str], name: str, number: int, length: int = _CHUNK) -> str:
    try:
        return text.read(length)
    except UnicodeDecodeError as error:
        raise _unreadable(name, f"is not JSON in UTF-8: {error.reason}, somewhere after row {number}") from error


def _table(stream: io.BufferedReader, name: str) -> Iterator[Row]:
    """Read CSV whose first row has the names; a cell that is a JSON list or object is one."""
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
    header = text.readline()
    delimiter = separator(header) or ","
    csv.field_size_limit(_LONGEST)
    names = next(csv.reader([header], delimiter=delimiter), [])
    if len(set(names)) < len(names) or not all(name.strip() for name in names):
        raise _unreadable(name, f"has columns without a name, or twice the same: {header.strip()}")
    names = [column.strip() for column in names]
    number = 1
    try:
        for number, cells in enumerate(csv.reader(text, delimiter=delimiter, strict=True), 2):
            if len(cells) == len(names):
                yield _cells(name, number, dict(zip(names, cells, strict=True)))
            elif cells:
                yield Row(name, number, {}, f"{len(cells)} cells where the first row has {len(names)} names")
    except csv.Error as error:
        raise _unreadable(
            name, f"is not CSV: row {number + 1}: {error}", "Look for a quote that is not closed."
        ) from error


def _cells(name: str, number: int, columns: dict[str, Any]) -> Row:
    for column, cell in columns.items():
        try:
            cell.encode()
        except UnicodeEncodeError:
            return Row(name, number, {}, "text that is not UTF-8")
        if cell.startswith(("[{", "{'", '{"')):
            try:
                columns[column] = json.loads(cell)
            except ValueError:
                if cell.startswith(("[{'", "{'")):
                    return Row(name, number, {}, "a list as Python prints it: write it with json.dumps")
    return Row(name, number, columns)


def _row(name: str, number: int, value: object) -> Row:
    if isinstance(value, dict):
        return Row(name, number, value)
    return Row(name, number, {}, "something that is not a JSON object")


def _parquet(path: Path, name: str, seen: Callable[[int], None]) -> Iterator[Row]:
    import pyarrow  # noqa: PLC0415  heavy
    import pyarrow.parquet  # noqa: PLC0415

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            size, rows = path.stat().st_size, max(file.metadata.num_rows, 1)
            number = 0
            for batch in file.iter_batches(_BATCH):
                for columns in batch.to_pylist():
                    number += 1
                    yield Row(name, number, columns)
                seen(size * number // rows)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise _unreadable(name, f"is not a whole Parquet file: {error}") from error


def _unreadable(name: str, what: str, hint: str | None = None) -> RunError:
    return RunError(Reason.DATASET_INVALID, f"{name} {what}", hint=hint)
