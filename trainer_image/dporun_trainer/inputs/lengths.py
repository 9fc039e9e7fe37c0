"""Lengths of many texts in a few numbers: quantiles, and how many are how long."""

import itertools
from collections.abc import Iterator, Sequence

from dporun_api.dataset_report import Histogram, Lengths

MOST_BARS = 40
"""Bars of a histogram, apart from the last one, which counts all that is longer."""


def lengths(values: Sequence[int], *, width: int | None = None) -> Lengths | None:
    """Sum up lengths.

    Args:
        values: lengths, in any order.
        width: of the bars of the histogram; see bar_width.

    Returns:
        None when there are no lengths.

    """
    if not values:
        return None
    ordered = sorted(values)
    return Lengths(
        mean=sum(ordered) / len(ordered),
        p50=_rank(ordered, 0.5),
        p90=_rank(ordered, 0.9),
        p99=_rank(ordered, 0.99),
        maximum=ordered[-1],
        histogram=_histogram(ordered, width or bar_width(ordered)),
    )


def bar_width(*several: Sequence[int]) -> int:
    """Width of bars that suits several histograms, so that they can be laid over each other.

    The smallest of 1, 2, 5, 10, 20, ... with which no more than MOST_BARS bars cover 99 % of each.
    """
    longest = max((_rank(sorted(values), 0.99) for values in several if values), default=0)
    widths: Iterator[int] = (digit * 10**power for power in itertools.count() for digit in (1, 2, 5))
    return next(width for width in widths if longest // width < MOST_BARS)


def _histogram(ordered: Sequence[int], width: int) -> Histogram:
    last = min(ordered[-1] // width, MOST_BARS)
    counts = [0] * (last + 1)
    for value in ordered:
        counts[min(value // width, last)] += 1
    return Histogram(width=width, counts=tuple(counts))


def _rank(ordered: Sequence[int], share: float) -> int:
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]
