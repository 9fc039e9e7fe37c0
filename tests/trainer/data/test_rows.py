"""Files of rows: every format gives the same rows, and damage is told by its place."""

import gzip
import json
from pathlib import Path

import pytest

from dporun_trainer.data.rows import read_rows
from dporun_trainer.errors import RunError

ROWS = [
    {"prompt": f"p{n}", "chosen": f"ünï {n}", "rejected": [{"role": "assistant", "content": "r"}]} for n in range(3)
]


def write(folder: Path, suffix: str) -> Path:
    path = folder / f"train{suffix}"
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()
    if suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        table = pyarrow.Table.from_pylist(ROWS)
        pyarrow.parquet.write_table(table, path, row_group_size=2)
    elif suffix == ".json":
        path.write_text(json.dumps(ROWS))
    elif suffix.endswith(".gz"):
        path.write_bytes(gzip.compress(lines))
    else:
        path.write_bytes(lines)
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".json", ".ndjson", ".parquet"])
def test_every_format_gives_the_same_rows(tmp_path: Path, suffix: str) -> None:
    rows = list(read_rows(write(tmp_path, suffix)))
    assert [row.columns for row in rows] == ROWS
    assert [row.number for row in rows] == [1, 2, 3]
    assert rows[0].file == f"train{suffix}"


def test_lines_are_counted_as_an_editor_does(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\n{"a": 2}\nnot json\n\xff\n[1]\n{"a": 3}')
    rows = list(read_rows(path))
    assert [(row.number, row.columns.get("a")) for row in rows if row.error is None] == [(1, 1), (3, 2), (7, 3)]
    assert [(row.number, row.error) for row in rows if row.error] == [
        (4, "something that is not JSON in UTF-8 (Expecting value)"),
        (5, "something that is not JSON in UTF-8"),
        (6, "something that is not a JSON object"),
    ]


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl.gz", ".json"])
def test_torn_files_are_errors(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path, suffix)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(RunError, match=f"train{suffix}"):
        list(read_rows(path))


def test_unknown_format(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"train\.csv is of an unknown format"):
        list(read_rows(write(tmp_path, ".csv")))
