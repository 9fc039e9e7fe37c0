"""Tallies, and pairs as they are written."""

from dporun_trainer.data.pairs import Pair, Tally


def test_tally_names_the_first_rows() -> None:
    tally = Tally()
    for number in range(1, 8):
        tally.add("a.jsonl", number)
    assert str(tally) == "rows 1, 2, 3, 4, 5 and 2 more of a.jsonl"
    shards = Tally()
    shards.add("a.parquet", 3)
    shards.add("b.parquet", 1)
    assert str(shards) == "rows 3 of a.parquet, 1 of b.parquet"


def test_tally_counts_the_pairs_of_a_row_once() -> None:
    tally = Tally()
    for number in (1, 1, 1, 2):
        tally.add("a.jsonl", number)
    assert (tally.count, tally.rows, str(tally)) == (4, 2, "rows 1, 2 of a.jsonl")


def test_line_is_canonical() -> None:
    assert Pair("é", "b", "c").line() == '{"prompt":"é","chosen":"b","rejected":"c"}'
