"""The table of metrics: every reported field has a row, and every curve is one."""

from collections import Counter

from dporun_api.metrics import CHARTS, METRICS, Metric, Split
from dporun_api.results import Metrics


def reported(metric: Metric) -> set[str]:
    return {field for split in Split if (field := metric.field(split))}


def test_every_field_of_the_status_has_exactly_one_row() -> None:
    rows = Counter(field for metric in METRICS for field in reported(metric))
    assert rows == Counter(list(Metrics.model_fields))


def test_every_curve_of_a_chart_is_a_row() -> None:
    assert {metric for chart in CHARTS for metric in chart.metrics} <= set(METRICS)
    assert len({chart.title for chart in CHARTS}) == len(CHARTS)


def test_every_reported_metric_is_in_a_chart() -> None:
    drawn = {metric for chart in CHARTS for metric in chart.metrics}
    assert {metric for metric in METRICS if reported(metric)} <= drawn


def test_names_are_unique() -> None:
    for names in (
        [metric.log_key(split) for metric in METRICS for split in metric.splits],
        [metric.label_of(split) for metric in METRICS for split in metric.splits],
        [metric.tag for metric in METRICS],
        [metric.short for metric in METRICS if metric.short],
        *([metric.curve_of(split) for metric in chart.metrics for split in metric.splits] for chart in CHARTS),
    ):
        assert len(set(names)) == len(names)


def test_a_field_is_reported_only_for_a_split_that_is_measured() -> None:
    for metric in METRICS:
        assert all(metric.field(split) is None for split in Split if split not in metric.splits)
