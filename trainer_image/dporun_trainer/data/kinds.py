"""What kind a file of rows is, by its content before its name; and its bytes, uncompressed."""

import gzip
import io
import json
import logging
from enum import Enum
from pathlib import PurePosixPath
from typing import IO, cast

from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer.errors import RunError

log = logging.getLogger(__name__)

_LINES = (".jsonl", ".json", ".ndjson")
_TABLES = (".csv", ".tsv")
_PACKED = (".gz", ".zst")
SUFFIXES = (
    ".parquet",
    *_LINES,
    *_TABLES,
    *(kind + packed for kind in (*_LINES, *_TABLES) for packed in _PACKED),
)
"""How the names of files of rows end."""

_ABOUT = frozenset({"config.json", "dataset_dict.json", "dataset_info.json", "dataset_infos.json", "state.json"})
"""Files about a data set, as the ``datasets`` library writes them beside its rows."""

SEPARATORS = ",\t;"
BOM = b"\xef\xbb\xbf"
_HEAD = 1 << 16
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"

_FOREIGN = (
    (b"version https://git-lfs", "is the pointer of Git LFS to a file, not the file", "Fetch it with `git lfs pull`."),
    (b"<?xml", "is an XML document, such as a server's message of an error", "Fetch it again."),
    (b"<", "is an HTML page, such as a server's message of an error or a login", "Fetch it again."),
    (b"pk\x03\x04", "is a ZIP archive", "Unpack it."),
    (b"bzh", "is compressed with bzip2", "Compress it with gzip or zstd, or not at all."),
    (b"\xfd7zxz", "is compressed with xz", "Compress it with gzip or zstd, or not at all."),
    (b"arrow1", "is an Arrow file", "Write it with Dataset.to_parquet or Dataset.to_json."),
    (b"\xff\xfe", "is text in UTF-16", "Save it as UTF-8."),
    (b"\xfe\xff", "is text in UTF-16", "Save it as UTF-8."),
)
"""How files begin that are no rows, in lower case; what they are, and what to do."""


class Kind(Enum):
    """How rows are written."""

    PARQUET = "Parquet"
    LINES = "JSON lines"
    ARRAY = "a JSON array"
    TABLE = "CSV"


def kind_of(head: bytes, name: str) -> Kind:
    """Tell the kind of a file by how it begins, uncompressed, and by its name where that leaves it open.

    Raises:
        RunError: it holds no rows; says what it is instead.

    """
    text = head.removeprefix(BOM).lstrip()
    for start, what, hint in _FOREIGN:
        if text[: len(start)].lower() == start:
            raise RunError(Reason.DATASET_INVALID, f"{name} {what}", hint=hint)
    suffix = _suffix(name)
    kind = _by_content(text, suffix)
    if kind is None:
        raise RunError(
            Reason.DATASET_INVALID,
            f"{name} is of an unknown format",
            hint=f"Rows are read from JSON, CSV and Parquet; end its name in one of {', '.join(SUFFIXES)}.",
        )
    by_name = {Kind.PARQUET: (".parquet",), Kind.TABLE: _TABLES}.get(kind, _LINES)
    if suffix not in by_name and text:
        log.info("%s holds %s, whatever its name says", name, kind.value)
    return kind


def _by_content(text: bytes, suffix: str) -> Kind | None:
    if text.startswith(b"PAR1") or (suffix == ".parquet" and text[:1] not in {b"{", b"["}):
        return Kind.PARQUET
    if text.startswith(b"["):
        return Kind.ARRAY
    if text.startswith(b"{"):
        return Kind.LINES
    if suffix in _TABLES:
        return Kind.TABLE
    if suffix in _LINES:
        return Kind.TABLE if _is_table(text) else Kind.LINES
    return None


def _is_table(text: bytes) -> bool:
    """Whether what is called JSON begins as a table does: names with separators, and no JSON below."""
    first, _, rest = text.partition(b"\n")
    if rest.lstrip().startswith((b"{", b"[")) or separator(first.decode("utf-8", "replace")) is None:
        return False
    try:
        json.loads(first)
    except ValueError:
        return True
    return False


def separator(header: str) -> str | None:
    """What separates the columns of a table; None where its first line has one column."""
    count, found = max((header.count(character), character) for character in SEPARATORS)
    return found if count else None


def open_stream(raw: IO[bytes], name: str) -> io.BufferedReader:
    """Read the bytes of a file of rows, uncompressed, whatever its name says.

    Raises:
        OSError, EOFError: by what reads, when the compressed bytes are damaged.

    """
    start = raw.read(4)
    raw.seek(0)
    if start.startswith(_GZIP):
        return io.BufferedReader(cast(io.RawIOBase, gzip.GzipFile(fileobj=raw)), _HEAD)
    if start == _ZSTD:
        import pyarrow  # noqa: PLC0415  heavy

        return io.BufferedReader(pyarrow.CompressedInputStream(raw, "zstd"), _HEAD)
    if name.endswith(_PACKED) and start:
        log.info("%s is not compressed, whatever its name says", name)
    return io.BufferedReader(cast(io.RawIOBase, raw), _HEAD)


def head_of(stream: io.BufferedReader) -> bytes:
    """Look at how a stream begins, and leave it as it is."""
    return stream.peek(_HEAD)


def is_rows(name: str) -> bool:
    """Whether a file of a folder is one of rows, by its name."""
    return name.endswith(SUFFIXES) and PurePosixPath(name).name not in _ABOUT


def _suffix(name: str) -> str:
    for packed in _PACKED:
        name = name.removesuffix(packed)
    return PurePosixPath(name).suffix
