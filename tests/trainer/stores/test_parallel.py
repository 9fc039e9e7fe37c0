"""Work side by side: what comes back, and what an error ends. That a signal waits for nothing: test_faults.py."""

import threading

import pytest

from dporun_trainer.stores.parallel import WORKERS, side_by_side


def test_results_come_in_the_order_of_the_items() -> None:
    later = threading.Event()

    def work(number: int) -> int:
        if number == 0:
            assert later.wait(60)
        elif number == WORKERS:
            later.set()
        return number * number

    assert side_by_side(work, range(WORKERS + 1)) == [number * number for number in range(WORKERS + 1)]
    assert side_by_side(work, []) == []


def test_after_an_error_nothing_more_begins() -> None:
    begun, all_busy = [], threading.Barrier(WORKERS)

    def work(number: int) -> None:
        begun.append(number)
        all_busy.wait(60)
        raise ValueError(number)

    with pytest.raises(ValueError, match=r"^[0-7]$"):
        side_by_side(work, range(100))
    assert sorted(begun) == list(range(WORKERS))


def test_what_is_under_way_ends_before_the_error_is_raised() -> None:
    begun, failed, ended = threading.Barrier(2), threading.Event(), []

    def work(number: int) -> None:
        begun.wait(60)
        if number == 0:
            failed.set()
            raise KeyError(number)
        assert failed.wait(60)
        ended.append(number)

    with pytest.raises(KeyError):
        side_by_side(work, range(2))
    assert ended == [1]
