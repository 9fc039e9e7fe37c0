"""What the charts show: lines, their smoothing, and the marks."""

import math
from typing import Any

import pytest

from dporun_api.metrics import CHARTS, Chart
from dporun_trainer.reporting.charts import MAX_POINTS, SMOOTH_FROM, Plot, plot
from dporun_trainer.run_folder.curves import Curves

LOSS, REWARDS, *_ = CHARTS


def filled(chart: Chart, history: list[dict[str, Any]], best_step: int | None = None) -> Plot:
    drawn = plot(chart, Curves.of(history), best_step)
    assert drawn is not None
    return drawn


def test_one_metric_has_a_colour_for_each_split() -> None:
    history = [{"step": step, "loss": 0.5, "eval_loss": 0.6} for step in (1, 2)]
    assert [(line.name, line.colour, line.secondary) for line in filled(LOSS, history).lines] == [
        ("training", "c1", False),
        ("validation", "c2", False),
    ]


def test_each_metric_has_a_colour_and_training_stands_back() -> None:
    keys = ("rewards/chosen", "rewards/rejected", "eval_rewards/chosen", "eval_rewards/rejected")
    history = [{"step": step, **dict.fromkeys(keys, 0.5)} for step in (1, 2)]
    assert [(line.name, line.colour, line.secondary) for line in filled(REWARDS, history).lines] == [
        ("chosen, training", "c3", True),
        ("rejected, training", "c4", True),
        ("chosen, validation", "c3", False),
        ("rejected, validation", "c4", False),
    ]


def test_a_long_line_is_thinned_and_smoothed() -> None:
    """It stands before its raw values."""
    history = [{"step": step, "loss": 0.5 + 0.1 * (-1) ** step} for step in range(1, 1 + 3 * MAX_POINTS)]
    (line,) = filled(LOSS, history).lines
    assert len(line.points) == len(line.raw) <= MAX_POINTS
    assert max(line.points.values) - min(line.points.values) <= max(line.raw.values) - min(line.raw.values)
    assert not line.dotted


def test_a_short_line_is_drawn_as_it_is() -> None:
    history = [{"step": step, "loss": 1 / step} for step in range(1, 1 + SMOOTH_FROM)]
    (line,) = filled(LOSS, history).lines
    assert line.points.values == tuple(entry["loss"] for entry in history)
    assert not line.raw
    assert line.dotted


def test_a_value_that_is_not_a_number_is_a_gap() -> None:
    history: list[dict[str, Any]] = [{"step": step, "loss": 0.5} for step in range(1, 9)]
    history[4]["loss"] = "NaN"
    history[7]["loss"] = math.inf
    drawn = filled(LOSS, history)
    assert drawn.lines[0].gaps == (5, 8)
    assert drawn.steps == (1, 8)


def test_a_curve_without_any_number_has_its_marks() -> None:
    """It is not left out as if it had never been measured."""
    history: list[dict[str, Any]] = [{"step": step, "loss": 0.5} for step in range(1, 9)]
    drawn = filled(LOSS, [*history, {"step": 8, "eval_loss": "NaN"}])
    assert [(line.name, len(line.points), line.gaps) for line in drawn.lines] == [
        ("training", 8, ()),
        ("validation", 0, (8,)),
    ]


@pytest.mark.parametrize(("best", "marked"), [(1, 1), (5, 5), (8, 8), (0, None), (9, None), (None, None)])
def test_the_best_checkpoint_is_marked_where_the_plot_reaches_it(best: int | None, marked: int | None) -> None:
    assert filled(LOSS, [{"step": step, "loss": 0.5} for step in range(1, 9)], best).best == marked


@pytest.mark.parametrize(("norms", "logarithmic"), [((1.0, 30.0), True), ((1.0, 15.0), False), ((0.0, 30.0), False)])
def test_an_axis_of_decades_is_logarithmic(norms: tuple[float, ...], logarithmic: bool) -> None:
    """When all values are positive."""
    chart = next(chart for chart in CHARTS if chart.logarithmic)
    history = [{"step": step, "grad_norm": norm} for step, norm in enumerate(norms)]
    assert filled(chart, history).logarithmic is logarithmic


@pytest.mark.parametrize("history", [[], [{"step": 1, "loss": 0.5}], [{"step": s, "loss": "NaN"} for s in (1, 2)]])
def test_a_chart_without_two_points_is_left_out(history: list[dict[str, Any]]) -> None:
    assert plot(LOSS, Curves.of(history), None) is None
