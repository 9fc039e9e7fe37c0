"""Times, durations and numbers as people read them."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dporun_api import text
from dporun_testing.builders import NOW


@pytest.mark.parametrize(
    ("seconds", "written"),
    [(0, "0s"), (0.4, "0s"), (41, "41s"), (60, "1m"), (61, "1m1s"), (3600, "1h"), (4321, "1h12m"), (90061, "1d1h")],
)
def test_durations(seconds: float, written: str) -> None:
    assert text.duration(seconds) == written


def test_times_go_there_and_back() -> None:
    assert text.timestamp(NOW) == "2026-01-05T10:00:00Z"
    assert text.parse_time(text.timestamp(NOW)) == NOW
    assert text.parse_time(None) is None


def test_sentences_and_ellipses() -> None:
    assert text.sentence("done") == "done."
    assert text.sentence("done.") == "done."
    assert text.shorten("abcdef", 4) == "abc…"
    assert text.shorten("abcd", 4) == "abcd"


@pytest.mark.parametrize(
    ("share", "written"), [(0.925, "92.5 %"), (0.8, "80 %"), (1, "100 %"), (0, "0 %"), (0.7999, "80 %"), (0.29, "29 %")]
)
def test_percent(share: float, written: str) -> None:
    assert text.percent(share) == written


@pytest.mark.parametrize(
    ("value", "others", "written"),
    [
        (0.7999, (0.8,), "79.99 %"),
        (0.8000001, (0.8, 0.7), "80.00001 %"),
        (0.69999, (0.8, 0.7), "69.999 %"),
        (0.8, (0.8,), "80 %"),
        (0.9, (0.8,), "90 %"),
        (0.8004, (0.80041,), "80.04 %"),
    ],
)
def test_a_number_reads_differently_from_its_limit(value: float, others: tuple[float, ...], written: str) -> None:
    assert text.apart(value, *others, write=text.percent, digits=1) == written


@given(st.floats(0, 1), st.floats(0, 1))
def test_rounding_never_hides_a_difference(value: float, limit: float) -> None:
    assume(abs(value - limit) > 1e-14)
    assert text.apart(value, limit, write=text.percent, digits=1) != text.percent(limit, 15)
