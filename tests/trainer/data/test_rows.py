"""Files of rows: every format gives the same rows, and damage is told by its place."""

import csv
import gzip
import json
import tracemalloc
from pathlib import Path

import pytest

from dporun_trainer.data import rows as rows_module
from dporun_trainer.data.rows import RowFile, count_rows, read_rows
from dporun_trainer.errors import RunError

ROWS = [
    {"prompt": f'p{n}, "so"\nto say', "chosen": f"ünï {n}", "rejected": [{"role": "assistant", "content": "r"}]}
    for n in range(3)
]
ALL = [".jsonl", ".json", ".ndjson", ".csv", ".tsv", *(".jsonl.gz", ".json.gz", ".csv.gz", ".jsonl.zst", ".tsv.zst")]


def write(folder: Path, suffix: str) -> Path:
    import pyarrow
    import pyarrow.parquet

    path, kind = folder / f"train{suffix}", suffix.removesuffix(".gz").removesuffix(".zst")
    if kind == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path, row_group_size=2)
        return path
    if kind in {".csv", ".tsv"}:
        with path.open("w", newline="", encoding="utf-8-sig") as file:
            table = csv.writer(file, delimiter="," if kind == ".csv" else "\t")
            table.writerow(ROWS[0])
            table.writerows([row["prompt"], row["chosen"], json.dumps(row["rejected"])] for row in ROWS)
        data = path.read_bytes()
    elif kind == ".json":
        data = json.dumps(ROWS, indent=1).encode()
    else:
        data = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()
    if suffix.endswith(".zst"):
        data = pyarrow.Codec("zstd").compress(data).to_pybytes()
    path.write_bytes(gzip.compress(data) if suffix.endswith(".gz") else data)
    return path


@pytest.mark.parametrize("suffix", [*ALL, ".parquet"])
def test_every_format_gives_the_same_rows(tmp_path: Path, suffix: str) -> None:
    rows = list(read_rows(write(tmp_path, suffix)))
    assert [row.columns for row in rows] == ROWS
    first = 2 if suffix[1:4] in {"csv", "tsv"} else 1
    assert [row.number for row in rows] == [first, first + 1, first + 2]
    assert rows[0].file == f"train{suffix}"


@pytest.mark.parametrize(
    ("suffix", "named"), [(".parquet", "a.jsonl"), (".jsonl.gz", "a.jsonl"), (".csv", "a.json"), (".json", "a.csv")]
)
def test_content_counts_and_not_the_name(tmp_path: Path, suffix: str, named: str) -> None:
    path = write(tmp_path, suffix).rename(tmp_path / named)
    assert [row.columns for row in read_rows(path)] == ROWS


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


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl.gz", ".json", ".jsonl.zst"])
def test_torn_files_are_errors(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path, suffix)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(RunError, match=f"train{suffix}"):
        list(read_rows(path))


@pytest.mark.parametrize(
    ("text", "rows", "error"),
    [
        (" [ ] ", 0, None),
        ('[1, {"a": 2}\n]\n', 2, None),
        ('[{"a": 1}, {"a": ]', 1, "not JSON in UTF-8: row 2: Expecting value"),
        ('[{"a": 1}, {"a": "2', 1, "ends within row 2"),
        ('[{"a": 1}, ', 1, "ends after row 1"),
        ('[{"a": 1} {"a": 2}]', 1, "'{' after row 1, not ',' or ']'"),
        ('[{"a": 1},]', 1, "row 2: Expecting value"),
        ('[{"a": 1}] {"a": 2}', 1, "more after the end of its array of 1 rows"),
    ],
)
@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
def test_arrays(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, rows: int, error: str | None, chunk: int
) -> None:
    """However little is read at a time."""
    monkeypatch.setattr(rows_module, "_CHUNK", chunk)
    (tmp_path / "a.json").write_text(text)
    read = read_rows(tmp_path / "a.json")
    for _ in range(rows):
        next(read)
    if error is None:
        assert not list(read)
    else:
        with pytest.raises(RunError) as raised:
            list(read)
        assert error in raised.value.message


def test_array_is_never_in_memory_as_a_whole(tmp_path: Path) -> None:
    row = json.dumps({"chosen": "x" * 5000})
    (tmp_path / "a.json").write_text(f"[{','.join([row] * 8000)}]")
    tracemalloc.start()
    assert sum(1 for _ in read_rows(tmp_path / "a.json")) == 8000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 2**20 < (tmp_path / "a.json").stat().st_size / 4


def test_tables(tmp_path: Path) -> None:
    """Bad rows are told by the row of a spreadsheet, and a list that Python printed is not taken for text."""
    (tmp_path / "a.csv").write_bytes(
        b'prompt;chosen\np;c\n\np\n\xff;c\n"a\nb";[{\'role\': \'user\'}]\np;"[{""role"": 1}]"\n'
    )
    rows = list(read_rows(tmp_path / "a.csv"))
    assert [(row.number, row.columns) for row in rows if row.error is None] == [
        (2, {"prompt": "p", "chosen": "c"}),
        (7, {"prompt": "p", "chosen": [{"role": 1}]}),
    ]
    assert [(row.number, row.error) for row in rows if row.error] == [
        (4, "1 cells where the first row has 2 names"),
        (5, "text that is not UTF-8"),
        (6, "a list as Python prints it: write it with json.dumps"),
    ]


@pytest.mark.parametrize(
    ("text", "cells"),
    [
        ('a\tb\n1\t"start\n2\tx\n3\tend"\n', [["1", '"start'], ["2", "x"], ["3", 'end"']]),
        ('a\tb\n"Quoted" x\t1\n', [['"Quoted" x', "1"]]),
        ('a\tb\n"Yes."\t1\n', [["Yes.", "1"]]),
        ('a\tb\n1\t"so ""2"":\n\t3\n\t\t4"\n5\t6\n', [["1", 'so "2":\n\t3\n\t\t4'], ["5", "6"]]),
    ],
)
def test_quotes_between_tabs(tmp_path: Path, text: str, cells: list[list[str]]) -> None:
    """They are characters of the text, unless the file means them as quotes."""
    (tmp_path / "a.tsv").write_text(text)
    rows = list(read_rows(tmp_path / "a.tsv"))
    assert [list(row.columns.values()) for row in rows] == cells


@pytest.mark.parametrize("text", [",a,b\n0,1,2\n", "sep=;\na;b\n1;2\n"])
def test_what_pandas_and_excel_add_is_no_data(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    assert [(row.number, row.columns) for row in read_rows(tmp_path / "a.csv")] == [(2, {"a": "1", "b": "2"})]


@pytest.mark.parametrize(
    ("column", "cell", "value"),
    [
        ("chosen", '{"a": 1}', None),
        ("rejected", '["x"]', None),
        ("question", '[{"a": 1}]', None),
        ("response_j", '[{"from": "gpt", "value": "x"}]', [{"from": "gpt", "value": "x"}]),
        ("output", '["better", "worse"]', ["better", "worse"]),
        ("scores", "[5, 1]", [5, 1]),
        ("chosen_messages", '[{"role": "user"}]', [{"role": "user"}]),
    ],
)
def test_json_in_cells(tmp_path: Path, column: str, cell: str, value: object) -> None:
    """Text that happens to be JSON stays text."""
    with (tmp_path / "a.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["id", column], ["1", cell]])
    assert next(read_rows(tmp_path / "a.csv")).columns[column] == (cell if value is None else value)


def test_a_message_in_a_cell_beside_a_conversation(tmp_path: Path) -> None:
    """As ShareGPT has it; elsewhere the same cell is an answer in JSON."""
    said = json.dumps({"from": "gpt", "value": "x"})
    for beside, expected in (("conversations", json.loads(said)), ("prompt", said)):
        with (tmp_path / "a.csv").open("w", newline="") as file:
            csv.writer(file).writerows([[beside, "chosen"], ["[]", said]])
        assert next(read_rows(tmp_path / "a.csv")).columns["chosen"] == expected


def test_rows_that_cannot_be_written_are_bad_rows(tmp_path: Path) -> None:
    r"""Halves of a character (\ud800) and bottomless lists end the row, not the run."""
    bad = ['{"a": [{"b": "\\ud800"}]}', '{"\\uDFFF": 1}']
    deep = '{"a": ' + "[" * 200_000 + "\n"
    deepish = '{"a": ' + "[" * 110 + "]" * 110 + "}"
    fine = ['{"a": "\\ud83d\\ude00"}', json.dumps({"a": "[" * 200, "b": [[]] * 200})]
    (tmp_path / "a.jsonl").write_text("\n".join([*bad, *fine, deepish, deep]))
    (tmp_path / "a.json").write_text(f"[{', '.join(bad)}, {deep}")
    rows = list(read_rows(tmp_path / "a.jsonl"))
    assert [row.error for row in rows] == [
        *["text that is not UTF-8"] * 2,
        *[None] * 2,
        *["lists or objects that are nested too deeply"] * 2,
    ]
    assert rows[2].columns == {"a": "\N{GRINNING FACE}"}
    read = read_rows(tmp_path / "a.json")
    assert [next(read).error for _ in bad] == ["text that is not UTF-8"] * 2
    with pytest.raises(RunError, match="row 3 has lists or objects that are nested too deeply"):
        next(read)


def test_damaged_gzip_is_an_error(tmp_path: Path) -> None:
    data = bytearray(gzip.compress(b"".join(b'{"a": %d}\n' % (n * n) for n in range(20_000))))
    data[10:50] = b"\xff" * 40
    (tmp_path / "a.jsonl.gz").write_bytes(data)
    with pytest.raises(RunError, match=r"a\.jsonl\.gz cannot be read: .*while decompressing"):
        list(read_rows(tmp_path / "a.jsonl.gz"))


def test_parquet_with_text_that_is_not_utf8(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    texts = pyarrow.array([b"x", b"\xff", b"y"], pyarrow.binary())
    table = pyarrow.table({"a": pyarrow.Array.from_buffers(pyarrow.string(), 3, texts.buffers())})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    rows = [(row.number, row.columns.get("a"), row.error) for row in read_rows(tmp_path / "a.parquet")]
    assert rows == [(1, "x", None), (2, None, "text that is not UTF-8"), (3, "y", None)]


def test_parquet_with_the_same_column_twice(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.Table.from_arrays([pyarrow.array(["x"])] * 2, names=["a", "a"])
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(RunError, match="columns twice under the same name: a, a"):
        list(read_rows(tmp_path / "a.parquet"))


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ('a,b\n1,2\n3,"4\n5,6\n', "row 3: unexpected end of data"),
        ("a,,b\n1,2,3\n", "columns without a name"),
        ("a,b,a\n1,2,3\n", "twice the same"),
        ("question,réponse\n1,2\n", "is not UTF-8: the names of its columns"),
    ],
)
def test_broken_tables(tmp_path: Path, text: str, error: str) -> None:
    (tmp_path / "a.csv").write_text(text, encoding="latin-1")
    with pytest.raises(RunError) as raised:
        list(read_rows(tmp_path / "a.csv"))
    assert error in raised.value.message


def test_rows_of_a_slice_and_bytes_seen(tmp_path: Path) -> None:
    path = write(tmp_path, ".jsonl")
    assert count_rows(RowFile(path, "a")) == 3
    assert [row.number for row in RowFile(path, "a", 1, 2).rows()] == [2]
    seen: list[int] = []
    list(RowFile(write(tmp_path, ".parquet"), "b").rows(seen.append))
    assert seen[-1] == (tmp_path / "train.parquet").stat().st_size
