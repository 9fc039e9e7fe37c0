"""Times, durations and numbers as people read them, and the operator's own metrics."""

import pytest

from dporun_api import text
from dporun_operator.metrics import Metrics
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


def test_metrics_are_in_the_format_of_prometheus() -> None:
    metrics = Metrics()
    metrics.observe(0.25, failed=False)
    metrics.observe(0.5, failed=True)
    lines = metrics.render({"Training": 2, "Failed": 1}, requests=7).splitlines()
    assert 'dporun_operator_runs{phase="Training"} 2' in lines
    assert 'dporun_operator_reconciliations_total{result="error"} 1' in lines
    assert "dporun_operator_reconcile_seconds_sum 0.750000" in lines
    assert "dporun_operator_api_requests_total 7" in lines
    named = {line.split()[2] for line in lines if line.startswith("# TYPE")}
    values = {line.split("{")[0].split()[0] for line in lines if not line.startswith("#")}
    assert {value.removesuffix("_sum").removesuffix("_count") for value in values} == named
