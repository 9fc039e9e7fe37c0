"""Work in batches: order, size, memory."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer.errors import RunError
from dporun_trainer.evaluation.batching import in_batches, stage
from dporun_trainer.evaluation.policy import Policy

NO_MODELS = Policy(model=None, tokenizer=None, reference=None, source=Path())  # type: ignore[arg-type]


def batched(work: Callable[[Sequence[Any]], Sequence[Any]], items: Sequence[Any], **arguments: Any) -> list[Any]:
    """Work that needs no models, in this process."""
    return in_batches(NO_MODELS, lambda _, batch: work(batch), items, **arguments)


@given(st.lists(st.integers(0, 50)), st.integers(1, 9))
def test_results_are_in_the_order_of_the_items(items: list[int], batch_size: int) -> None:
    doubled = batched(lambda batch: [2 * x for x in batch], items, batch_size=batch_size, length=lambda x: x)
    assert doubled == [2 * x for x in items]


def test_longest_come_first_and_batches_hold_similar_lengths() -> None:
    seen: list[list[str]] = []

    def work(batch: Sequence[str]) -> list[int]:
        seen.append(list(batch))
        return [len(text) for text in batch]

    batched(work, ["a", "cccc", "bb", "ddddd"], batch_size=2, length=len)
    assert seen == [["ddddd", "cccc"], ["bb", "a"]]


def test_running_out_of_gpu_memory_halves_the_batch_and_goes_on() -> None:
    sizes: list[int] = []

    def work(batch: Sequence[int]) -> list[int]:
        sizes.append(len(batch))
        if len(batch) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return list(batch)

    told: list[tuple[int, int]] = []
    items = list(range(10))
    assert batched(work, items, batch_size=8, length=lambda x: x, on_progress=lambda *at: told.append(at)) == items
    assert sizes == [8, 4, 2, 2, 2, 2, 2]
    assert told == [(2, 10), (4, 10), (6, 10), (8, 10), (10, 10)]


def test_one_item_that_does_not_fit_says_what_to_do() -> None:
    def work(_: Sequence[int]) -> list[int]:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(RunError, match="one sequence of 7 tokens") as caught:
        batched(work, [5, 7], batch_size=4, length=lambda x: x)
    assert caught.value.reason is Reason.GPU_OUT_OF_MEMORY
    assert "maxLength" in str(caught.value.hint)


def test_other_errors_are_not_taken_for_lack_of_memory() -> None:
    with pytest.raises(ZeroDivisionError):
        batched(lambda batch: [1 // x for x in batch], [0, 0], batch_size=2, length=lambda x: x)


def test_stage_counts_items_of_several_pieces_once() -> None:
    told: list[tuple[str, int, int]] = []
    advance = stage(lambda *at: told.append(at), "scoring", per_item=2)
    assert advance is not None
    advance(3, 20)
    advance(20, 20)
    assert told == [("scoring", 1, 10), ("scoring", 10, 10)]
