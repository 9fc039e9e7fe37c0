"""Rows of data files, one at a time: JSON lines, a JSON array, Parquet, CSV."""

import csv
import io
import itertools
import json
import math
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer.data.columns import CANDIDATE_RANKS, CANDIDATE_SCORES, CANDIDATES
from dporun_trainer.data.kinds import BOM, Kind, head_of, kind_of, open_stream, separator
from dporun_trainer.errors import RunError

if TYPE_CHECKING:
    import pyarrow

_BATCH = 256
"""Rows of Parquet that are in memory at a time."""
_CHUNK = 1 << 20
_SPACE = " \t\r\n"
_DECODER = json.JSONDecoder()
_LONGEST = 1 << 26
"""Characters of the longest row of an array, or cell of a table: a bracket or quote that is never closed ends here."""
_NOT_UTF8 = "text that is not UTF-8"
_DEEPEST = 100
"""Lists or objects within one another; what reads them later calls itself for each."""
_TOO_DEEP = "lists or objects that are nested too deeply"
_LISTED = {
    *("messages", "conversations", "history", "tools", "prompt_messages", "output"),
    *CANDIDATES,
    *CANDIDATE_SCORES,
    *CANDIDATE_RANKS,
}
"""Columns in which a cell of a table that is JSON is one; elsewhere it may be a text that happens to be JSON."""


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
            if kind is Kind.TABLE:
                rows = _table(stream, path, name)
            else:
                rows = _array(stream, name) if kind is Kind.ARRAY else _lines(stream, name)
            for count, row in enumerate(rows):
                if count % _BATCH == 0:
                    seen(raw.tell())
                yield row
    except (OSError, EOFError, zlib.error) as error:
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
        except RecursionError:
            yield Row(name, number, {}, _TOO_DEEP)
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
        except RecursionError as found:
            raise _unreadable(name, f"cannot be read: row {number} has {_TOO_DEEP}") from found
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


def _table(stream: io.BufferedReader, path: Path, name: str) -> Iterator[Row]:
    """Read CSV whose first row has the names; a cell that is a JSON list or object is one where that can be meant."""
    text, delimiter, names = _opened(stream, name)
    plain = delimiter == "\t" and _fit(path, name, plain=True) > _fit(path, name, plain=False)
    width = len(names)
    index = width > 1 and not names[0]  # as pandas writes it
    names = names[index:]
    if len(set(names)) < len(names) or not all(names):
        raise _unreadable(name, f"has columns without a name, or twice the same: {delimiter.join(names)}")
    number = 1
    try:
        for number, cells in enumerate(_reader(text, delimiter, plain=plain), 2):
            if len(cells) == width:
                yield _cells(name, number, dict(zip(names, cells[index:], strict=True)))
            elif cells:
                yield Row(name, number, {}, f"{len(cells)} cells where the first row has {width} names")
    except csv.Error as error:
        raise _unreadable(
            name, f"is not CSV: row {number + 1}: {error}", "Look for a quote that is not closed."
        ) from error


def _opened(stream: io.BufferedReader, name: str) -> tuple[IO[str], str, list[str]]:
    """Begin to read a table: (what follows its first row, what separates its columns, their names)."""
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
    header = text.readline()
    said = header.strip().removeprefix("sep=") if header.startswith("sep=") else ""
    if len(said) == 1:  # a line for Excel, which does not count as a row there
        header = text.readline()
    try:
        header.encode()
    except UnicodeEncodeError as error:
        raise _unreadable(name, "is not UTF-8: the names of its columns are in another encoding", "Save it as UTF-8."
        ) from error  # fmt: skip
    delimiter = said if len(said) == 1 else separator(header) or ","
    names = next(csv.reader([header], delimiter=delimiter), [])
    return text, delimiter, [column.strip() for column in names]


def _reader(text: IO[str], delimiter: str, *, plain: bool) -> Iterator[list[str]]:
    csv.field_size_limit(_LONGEST)
    return csv.reader(text, delimiter=delimiter, strict=True, quoting=csv.QUOTE_NONE if plain else csv.QUOTE_MINIMAL)


def _fit(path: Path, name: str, *, plain: bool) -> tuple[float, int]:
    """Say how well a table can be read with quotes or without (``plain``): (minus its torn rows, its whole ones).

    Text between tabs is often written without quoting, and a quote is a character like others. Taken for one that
    quotes, it joins rows to one; where it does quote, cells of several lines are torn when it is taken for a character.
    """
    with path.open("rb") as raw:
        text, delimiter, names = _opened(open_stream(raw, name), name)
        try:
            widths = Counter(len(cells) == len(names) for cells in _reader(text, delimiter, plain=plain) if cells)
        except csv.Error:
            return -math.inf, 0
    return -widths[False], widths[True]


def _cells(name: str, number: int, columns: dict[str, Any]) -> Row:
    for column, cell in columns.items():
        try:
            cell.encode()
        except UnicodeEncodeError:
            return Row(name, number, {}, _NOT_UTF8)
        if not cell.startswith(("[", "{")):
            continue
        listed = column in _LISTED or column.endswith(("_messages", "_conversations"))
        try:
            value = json.loads(cell)
        except (ValueError, RecursionError):
            if cell.startswith(("[{'role'", "[{'from'", "[{'content'", "[{'value'") + (("['", "{'", "[{'") * listed)):
                return Row(name, number, {}, "a list as Python prints it: write it with json.dumps")
        else:
            one = isinstance(value, dict) and "conversations" in columns  # ShareGPT: chosen is a message
            if listed or _are_messages([value] if one else value):
                columns[column] = value
    return _usable(Row(name, number, columns))


def _are_messages(value: object) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(item, dict) and ("role" in item or "from" in item) for item in value)
    )


def _usable(row: Row) -> Row:
    """Have a row be one that can be written: JSON can name halves of a character by their numbers, anywhere."""
    try:
        text = json.dumps(row.columns, ensure_ascii=False)
        text.encode()
    except UnicodeEncodeError:
        return Row(row.file, row.number, {}, _NOT_UTF8)
    except RecursionError:
        return Row(row.file, row.number, {}, _TOO_DEEP)
    if text.count("[") + text.count("{") > _DEEPEST and _is_deep(row.columns):
        return Row(row.file, row.number, {}, _TOO_DEEP)
    return row


def _is_deep(value: object) -> bool:
    level = [value]
    for _ in range(_DEEPEST):
        below = [item.values() if isinstance(item, dict) else item for item in level if isinstance(item, dict | list)]
        if not below:
            return False
        level = list(itertools.chain.from_iterable(below))
    return True


def _row(name: str, number: int, value: object) -> Row:
    if isinstance(value, dict):
        return _usable(Row(name, number, value))
    return Row(name, number, {}, "something that is not a JSON object")


def _parquet(path: Path, name: str, seen: Callable[[int], None]) -> Iterator[Row]:
    import pyarrow  # noqa: PLC0415  heavy
    import pyarrow.parquet  # noqa: PLC0415

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            size, rows = path.stat().st_size, max(file.metadata.num_rows, 1)
            number = 0
            names = file.schema_arrow.names
            if len(set(names)) < len(names):
                raise _unreadable(name, f"has columns twice under the same name: {', '.join(names)}")
            for batch in file.iter_batches(_BATCH):
                for columns in _records(batch):
                    number += 1
                    yield Row(name, number, {}, _NOT_UTF8) if columns is None else Row(name, number, columns)
                seen(size * number // rows)
    except (pyarrow.ArrowException, OSError, ValueError) as error:  # UnicodeDecodeError of a name, for one
        raise _unreadable(name, f"is not a whole Parquet file: {error}") from error


def _records(batch: "pyarrow.RecordBatch") -> list[dict[str, Any] | None]:
    """Convert the rows of a batch; None for one with text that is not UTF-8, which Parquet does not check."""
    try:
        return list(batch.to_pylist())
    except UnicodeDecodeError:
        if batch.num_rows == 1:
            return [None]
        return [record for index in range(batch.num_rows) for record in _records(batch.slice(index, 1))]


def _unreadable(name: str, what: str, hint: str | None = None) -> RunError:
    return RunError(Reason.DATASET_INVALID, f"{name} {what}", hint=hint)
