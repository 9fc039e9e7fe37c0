"""Rows of data files, one at a time: JSONL, JSON and Parquet."""

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer.errors import RunError

_BATCH = 1024


@dataclass(frozen=True)
class Row:
    """A row of a file: its columns, or what is wrong with it as a whole.

    ``number`` counts from 1; in JSONL it is the line.
    """

    file: str
    number: int
    columns: dict[str, Any]
    error: str | None = None


def read_rows(path: Path, name: str | None = None) -> Iterator[Row]:
    """Read the rows of ``path`` as a stream; a row that cannot be read is a Row with an error.

    Args:
        path: a file; its name decides its format (``.jsonl``, ``.json``, ``.ndjson``, each also with ``.gz``;
            ``.parquet``).
        name: of the file, for messages.

    Raises:
        RunError: the file as a whole cannot be read.

    """
    name = name or path.name
    if path.name.endswith(".parquet"):
        yield from _parquet(path, name)
    elif path.name.endswith((".jsonl", ".json", ".ndjson", ".jsonl.gz", ".json.gz", ".ndjson.gz")):
        yield from _json(path, name)
    else:
        raise RunError(
            Reason.DATASET_INVALID,
            f"{name} is of an unknown format",
            hint="Name it .jsonl or .parquet, for what it is.",
        )


def _json(path: Path, name: str) -> Iterator[Row]:
    with _open(path) as file:
        try:
            start = file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n")
            file.seek(0)
            if start.startswith(b"["):
                yield from _array(file, name)
            else:
                yield from _lines(file, name)
        except (OSError, EOFError) as error:
            raise RunError(Reason.DATASET_INVALID, f"{name} cannot be read: {error}") from error


def _lines(file: IO[bytes], name: str) -> Iterator[Row]:
    for number, line in enumerate(file, 1):
        text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
        if not text.strip():
            continue
        try:
            value = json.loads(text)
        except ValueError as error:  # of UnicodeDecodeError and JSONDecodeError alike
            why = f" ({error.msg})" if isinstance(error, json.JSONDecodeError) else ""
            yield Row(name, number, {}, f"something that is not JSON in UTF-8{why}")
        else:
            yield _row(name, number, value)


def _array(file: IO[bytes], name: str) -> Iterator[Row]:
    try:
        values = json.load(file)
    except ValueError as error:
        raise RunError(Reason.DATASET_INVALID, f"{name} is not JSON in UTF-8: {error}") from error
    for number, value in enumerate(values, 1):
        yield _row(name, number, value)


def _row(name: str, number: int, value: object) -> Row:
    if isinstance(value, dict):
        return Row(name, number, value)
    return Row(name, number, {}, "something that is not a JSON object")


def _parquet(path: Path, name: str) -> Iterator[Row]:
    import pyarrow  # noqa: PLC0415  heavy
    import pyarrow.parquet  # noqa: PLC0415

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches(_BATCH):
                for columns_of_row in batch.to_pylist():
                    number += 1
                    yield Row(name, number, columns_of_row)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise RunError(Reason.DATASET_INVALID, f"{name} is not a whole Parquet file: {error}") from error


def _open(path: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path, "rb")) if path.name.endswith(".gz") else path.open("rb")
