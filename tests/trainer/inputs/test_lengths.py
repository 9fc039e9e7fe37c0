"""Lengths as quantiles and histograms."""

from hypothesis import given
from hypothesis import strategies as st

from dporun_trainer.inputs.lengths import MOST_BARS, bar_width, lengths

VALUES = st.lists(st.integers(0, 200_000), min_size=1, max_size=300)


@given(values=VALUES)
def test_every_length_is_in_one_bar(values: list[int]) -> None:
    found = lengths(values)
    assert found is not None
    width, counts = found.histogram.width, found.histogram.counts
    assert sum(counts) == len(values)
    assert len(counts) <= MOST_BARS + 1
    for index, count in enumerate(counts[:-1]):
        assert count == sum(index * width <= value < (index + 1) * width for value in values)
    assert counts[-1] > 0, "no bar is behind the longest"


@given(values=VALUES, others=VALUES)
def test_bars_are_as_narrow_as_a_page_allows(values: list[int], others: list[int]) -> None:
    width = bar_width(values, others)
    assert str(width).rstrip("0") in {"1", "2", "5"}
    covered = [sorted(one)[min(int(0.99 * len(one)), len(one) - 1)] for one in (values, others)]
    assert max(covered) < MOST_BARS * width
    assert width == 1 or max(covered) >= MOST_BARS * width / 2.5, "the next narrower one covers less"


def test_a_few_long_texts_do_not_squeeze_the_others() -> None:
    found = lengths([*range(100, 300), 90_000])
    assert found is not None
    assert found.histogram.width == 10
    assert (found.histogram.counts[10], found.histogram.counts[-1]) == (10, 1)
    assert (found.p50, found.maximum) == (200, 90_000)


def test_no_texts_have_no_lengths() -> None:
    assert lengths([]) is None
