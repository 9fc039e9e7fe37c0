"""What a number shows: intervals against published values, and numbers of examples that really decide."""

import itertools
import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dporun_api.run_config import Evaluation, Gates
from dporun_trainer.significance import (
    FEWEST,
    LEVEL,
    MOST,
    NOTICEABLE_WITHIN,
    Lead,
    count_for_lead,
    count_for_mean,
    count_for_share,
    count_to_tell,
    lead,
    sign_test,
    wilson,
)

numbers = st.integers(-320, 320).map(lambda count: count / 64)  # sums and products of them are exact
levels = st.sampled_from([0.01, 0.05, 0.2, 1.0])


def holds(interval: tuple[float, float], value: float) -> bool:
    return interval[0] <= value <= interval[1]


@pytest.mark.parametrize(
    ("right", "count", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_is_as_published(right: int, count: int, low: float, high: float) -> None:
    """Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I, method 3."""
    assert wilson(right / count, count) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize("count", [16, 60, 200])
def test_wilson_holds_the_truth_19_times_in_20(count: int) -> None:
    """Exactly, by the binomial distribution, on average over true shares from 0.5 to 0.99."""
    intervals = [wilson(right / count, count) for right in range(count + 1)]

    def covered(truth: float) -> float:
        chances = (math.comb(count, k) * truth**k * (1 - truth) ** (count - k) for k in range(count + 1))
        return sum(chance for chance, interval in zip(chances, intervals, strict=True) if holds(interval, truth))

    truths = [0.5 + step / 100 for step in range(50)]
    assert sum(map(covered, truths)) / len(truths) == pytest.approx(0.95, abs=0.015)


def test_constants_have_an_interval_and_nothing_has_all() -> None:
    assert wilson(1, 1) == (pytest.approx(0.2065, abs=1e-4), 1)
    assert wilson(0, 1) == (0, pytest.approx(0.7935, abs=1e-4))
    assert wilson(0.3, 0) == (0, 1)


def test_the_fewest_pairs_are_those_that_can_show_80_percent() -> None:
    assert wilson(1, FEWEST)[0] > 0.8 > wilson(1, FEWEST - 1)[0]
    assert count_for_share(1, 0.8) == FEWEST


@given(st.floats(0, 1), st.floats(0.01, 0.99))
def test_so_many_decide_a_share_and_one_less_does_not(share: float, limit: float) -> None:
    needed = count_for_share(share, limit)
    assume(1 < needed < MOST)
    assert not holds(wilson(share, needed + 1), limit)
    assert holds(wilson(share, max(1, needed - 2)), limit)


@given(st.floats(0.01, 0.98), st.floats(0.001, 0.01), st.floats(0.001, 0.01))
def test_nearer_to_the_limit_needs_more(limit: float, near: float, further: float) -> None:
    assert count_for_share(limit + near, limit) >= count_for_share(limit + near + further, limit)
    interval = limit - 1, limit + 1
    assert count_for_mean(limit + near, limit, interval, 50) >= count_for_mean(
        limit + near + further, limit, interval, 50
    )


@given(numbers, numbers, numbers.filter(lambda half: half > 0), st.integers(16, 500))
def test_so_many_decide_a_mean(mean: float, limit: float, half: float, count: int) -> None:
    needed = count_for_mean(mean, limit, (mean - half, mean + half), count)
    assume(needed < MOST)
    shrunk = half * math.sqrt(count / needed)
    assert not holds((mean - shrunk, mean + shrunk), limit)
    assert (needed <= count) == (not holds((mean - half, mean + half), limit))


@pytest.mark.parametrize(
    "count", [count_for_share(0.8, 0.8), count_for_mean(2, 2, (1, 3), 50), count_for_lead(5, 5, 1)]
)
def test_no_number_decides_what_is_on_the_limit(count: int) -> None:
    assert count == MOST


@pytest.mark.parametrize(
    ("wins", "losses", "p"), [(0, 0, 1), (5, 5, 1), (5, 0, 2 / 32), (0, 5, 2 / 32), (8, 1, 20 / 512)]
)
def test_sign_test_is_exact(wins: int, losses: int, p: float) -> None:
    assert sign_test(wins, losses) == pytest.approx(p)


def test_sign_test_of_many_is_quick_and_finite() -> None:
    assert sign_test(60_000, 40_000) < 1e-9


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 200), levels)
def test_so_many_answers_decide(better: int, worse: int, equal: int, level: float) -> None:
    """Counts that are multiplied until they are as many are significant."""
    needed = count_for_lead(better, worse, equal, level)
    assume(needed < MOST)
    times = math.ceil(needed / (better + worse + equal))
    assert sign_test(times * better, times * worse) <= level
    assert lead(times * better, times * worse, times * equal, level) is Lead.BETTER


UNCLEAR = [
    counts
    for counts in itertools.product(range(21), range(21), (0, 1, 4, 9, 20, 40), (0.01, 0.05, 0.2, 1.0))
    if any(counts[:3]) and lead(*counts) is Lead.UNCLEAR
]


@given(st.sampled_from(UNCLEAR))
def test_after_so_many_answers_a_lead_is_clear(counts: tuple[int, int, int, float]) -> None:
    better, worse, equal, level = counts
    times = math.ceil(count_to_tell(better, worse, equal, level) / (better + worse + equal))
    assert times > 1
    assert lead(times * better, times * worse, times * equal, level) is not Lead.UNCLEAR


@given(st.integers(1, 60), st.integers(0, 60), st.integers(0, 200))
def test_a_larger_lead_needs_fewer_answers(better: int, worse: int, equal: int) -> None:
    assert count_for_lead(better + 1, worse, equal) <= count_for_lead(better, worse, equal + 1)


@pytest.mark.parametrize(
    ("better", "worse", "equal", "expected"),
    [
        (6, 0, 0, Lead.BETTER),
        (28, 3, 9, Lead.BETTER),
        (3, 28, 9, Lead.WORSE),
        (4, 13, 2, Lead.WORSE),
        (1, 0, 200, Lead.NONE),  # the answers are the same
        (0, 0, 16, Lead.NONE),
        (110, 90, 0, Lead.NONE),
        (8, 8, 0, Lead.NONE),
        (7, 9, 0, Lead.NONE),
        (2, 0, 11, Lead.UNCLEAR),
        (5, 0, 0, Lead.UNCLEAR),
        (0, 0, 15, Lead.UNCLEAR),
        (12, 8, 0, Lead.UNCLEAR),  # 60 % of 20 is no sign, of 200 it would be one
    ],
)
def test_a_lead_is_seen_missing_or_unclear(better: int, worse: int, equal: int, expected: Lead) -> None:
    assert lead(better, worse, equal) is expected


@given(st.integers(0, 200), st.integers(0, 200), st.integers(0, 200))
def test_many_answers_are_never_unclear(better: int, worse: int, equal: int) -> None:
    assume(better + worse + equal >= 1.1 * NOTICEABLE_WITHIN)
    assert lead(better, worse, equal) is not Lead.UNCLEAR


def test_the_defaults_of_a_run_are_those_of_the_test() -> None:
    assert Gates().better_than_base == LEVEL
    assert Evaluation().max_examples == NOTICEABLE_WITHIN
