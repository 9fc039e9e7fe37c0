"""Slices of splits: as ``datasets`` understands them, and refused in words where it does not."""

import pytest
from datasets import ReadInstruction
from hypothesis import given
from hypothesis import strategies as st

from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer.errors import RunError
from dporun_trainer.inputs.slices import Part, Slice, shares, split_address

bounds = st.one_of(st.just(""), st.integers(-100, 100).map(str))


@given(bounds, bounds, st.sampled_from(["", "%"]), st.integers(0, 300))
def test_slices_are_those_of_datasets(start: str, stop: str, unit: str, total: int) -> None:
    text = f"train[{start + unit if start else ''}:{stop + unit if stop else ''}]"
    _, part = split_address(f"hf://owner/name?split={text}", Reason.DATASET_INVALID)
    theirs = ReadInstruction.from_spec(text).to_absolute({"train": total})[0]
    assert part.slices[0].rows(total) == (theirs.from_, theirs.to)


@pytest.mark.parametrize(
    ("query", "part"),
    [
        ("", Part()),
        ("?split=test&config=a-b", Part((Slice("test"),), "a-b")),
        ("?split=train[:10%]+test[-5:]", Part((Slice("train", None, 10, True), Slice("test", -5)))),
        ("?split=train%5B5%25:10%25%5D", Part((Slice("train", 5, 10, True),))),
        ("?config=default&revision=refs/pr/1", Part((), "default", "refs/pr/1")),
    ],
)
def test_parts(query: str, part: Part) -> None:
    assert split_address(f"s3://bucket/folder{query}", Reason.DATASET_INVALID) == ("s3://bucket/folder", part)


def test_question_mark_of_a_name_is_no_query() -> None:
    assert split_address("s3://bucket/why?.jsonl", Reason.DATASET_INVALID) == ("s3://bucket/why?.jsonl", Part())


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("spilt=train", "unknown parameter spilt"),
        ("split=train[5]", "no split is written 'train[5]'"),
        ("split=train[:200%]", "no split is written 'train[:200%]'"),
        ("split=train[:10%](pct1_dropremainder)", "no split is written"),
    ],
)
def test_refused(query: str, words: str) -> None:
    with pytest.raises(RunError) as raised:
        split_address(f"hf://owner/name?{query}", Reason.DATASET_INVALID)
    assert words in raised.value.message
    assert "?split=train[:10%]" in str(raised.value.hint)


@given(st.lists(st.integers(0, 9), max_size=5), st.integers(0, 40), st.integers(0, 40))
def test_shares_of_files_are_the_slice(counts: list[int], start: int, stop: int) -> None:
    rows = [(file, row) for file, count in enumerate(counts) for row in range(count)]
    taken = shares(Slice("train", start, stop), counts)
    assert [(file, row) for file, (first, end) in enumerate(taken) for row in range(first, end)] == rows[start:stop]
