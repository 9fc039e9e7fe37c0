"""Times, durations and numbers as people read them."""

import pytest

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
