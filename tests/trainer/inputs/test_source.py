"""Rows of a source: drawn by a seed, whatever their order, and how far the reading is."""

import re
from pathlib import Path
from typing import Any

from dporun_testing.tiny_model import text_pairs, write_rows
from dporun_trainer.data.rows import RowFile
from dporun_trainer.inputs.source import Source


def drawn(path: Path, rows: list[Any], count: int, seed: int = 1) -> list[Any]:
    file = RowFile(write_rows(path, rows), path.name)
    return [row.columns for row in Source("file://rows", [file], count, seed).rows()]


def test_the_same_rows_are_drawn_from_any_order(tmp_path: Path) -> None:
    rows = text_pairs(200)
    some = drawn(tmp_path / "a.jsonl", rows, 50)
    assert len(some) == 50
    assert some == [row for row in rows if row in some], "in their order"
    again = drawn(tmp_path / "b.jsonl", rows[::-1], 50)
    assert sorted(map(repr, again)) == sorted(map(repr, some))
    other = drawn(tmp_path / "a.jsonl", rows, 50, seed=2)
    assert 1 < sum(row in some for row in other) < 40, "another seed draws others"


def test_as_many_as_there_are(tmp_path: Path) -> None:
    """Equal rows have equal ranks: some of them are drawn, and never more than were asked for."""
    rows = text_pairs(2) * 5
    assert [len(drawn(tmp_path / "a.jsonl", rows, count)) for count in (3, 10, 100)] == [3, 10, 10]


def test_progress_counts_bytes(tmp_path: Path) -> None:
    files = [RowFile(write_rows(tmp_path / name, text_pairs(1000)), name) for name in ("a.jsonl", "b.jsonl")]
    lines: list[str] = []
    assert sum(1 for _ in Source("file://rows", files).rows(lines.append)) == 2000
    pattern = r"read [\d,]+ rows of file://rows: (\d+)%, [\d,]+ rows/s(, \w+ left)?"
    matches = [re.fullmatch(pattern, line) for line in lines]
    shares = [int(match[1]) for match in matches if match]
    assert len(shares) == len(lines) == 2000
    assert shares == sorted(shares)
    assert shares[999] <= 50 <= shares[1300] < shares[-1] <= 100
