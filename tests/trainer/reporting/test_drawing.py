"""The charts as SVG: what a reader sees, and that the page's style sheet alone decides how it looks."""

import random
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import pytest

from dporun_api.metrics import CHARTS, Chart
from dporun_trainer.reporting.charts import plot
from dporun_trainer.reporting.drawing import svg
from dporun_trainer.run_folder.curves import Curves

LOSS, REWARDS, *_ = CHARTS
GRADIENTS = next(chart for chart in CHARTS if chart.logarithmic)


def picture(history: list[dict[str, Any]], *, chart: Chart = LOSS, best: int | None = None) -> str:
    drawn = plot(chart, Curves.of(history), best)
    assert drawn is not None
    return svg(drawn)


def losses(*values: float | str) -> list[dict[str, Any]]:
    return [{"step": step, "loss": value} for step, value in enumerate(values, start=1)]


def shapes(drawn: str, tag: str, css: str | None = None) -> list[Element]:
    return [shape for shape in ElementTree.fromstring(drawn).iter(tag) if css is None or shape.get("class") == css]


def numbers_of_the_value_axis(drawn: str) -> list[float]:
    texts = [text for text in shapes(drawn, "text") if text.get("class") is None and text.get("text-anchor") == "end"]
    return [float(text.text or "") for text in texts if text.text != "step"]


def test_each_dot_and_each_line_has_a_tooltip() -> None:
    drawn = picture(losses(0.69, 0.5))
    assert [dot.findtext("title") for dot in shapes(drawn, "circle", "c1")] == [
        "training: 0.69 at step 1",
        "training: 0.5 at step 2",
    ]
    assert [line.findtext("title") for line in shapes(drawn, "path", "c1")] == ["training: 0.5 at step 2"]


def test_values_that_are_not_numbers_are_marked() -> None:
    drawn = picture(losses(*[0.5] * 4, "NaN", *[0.5] * 3))
    (gap,) = shapes(drawn, "text", "gap")
    assert gap.text == "!"
    assert gap.findtext("title") == "training: not a number at step 5"
    assert "nan" not in drawn.lower().replace("not a number", "")


def test_a_curve_without_any_number_has_marks_alone() -> None:
    drawn = picture([*losses(0.6, 0.5), {"step": 2, "eval_loss": "NaN"}])
    assert [mark.findtext("title") for mark in shapes(drawn, "text", "gap")] == ["validation: not a number at step 2"]


def test_the_best_checkpoint_is_marked_above_its_step() -> None:
    drawn = picture(losses(0.7, 0.6, 0.5, 0.6, 0.7), best=3)
    (line,), (text,) = shapes(drawn, "path", "best"), shapes(drawn, "text", "best")
    assert text.text == "best"
    assert text.get("x") == shapes(drawn, "circle", "c1")[2].get("cx")
    assert (line.get("d") or "").startswith(f"M {text.get('x')} ")


def test_a_mark_at_the_end_does_not_leave_the_picture() -> None:
    (text,) = shapes(picture(losses(0.7, 0.6, 0.5), best=3), "text", "best")
    assert text.get("text-anchor") == "end"


def test_noisy_values_stand_faintly_behind_their_average() -> None:
    noise = random.Random(7)
    drawn = picture(losses(*(noise.random() for _ in range(100))))
    assert [path.get("class") for path in shapes(drawn, "path")][-2:] == ["c1 raw", "c1"]
    assert not shapes(drawn, "circle")


def test_training_lines_among_others_are_dashed() -> None:
    """By the style sheet."""
    keys = ("rewards/chosen", "rewards/rejected", "eval_rewards/chosen", "eval_rewards/rejected")
    drawn = picture([{"step": step, **dict.fromkeys(keys, step)} for step in (1, 2)], chart=REWARDS)
    assert [path.get("class") for path in shapes(drawn, "path") if path.get("class") != "grid"] == [
        "c3 thin",
        "c4 thin",
        "c3",
        "c4",
    ]


def test_the_style_sheet_alone_decides_on_colours_and_fonts() -> None:
    drawn = picture(losses(0.7, 0.6, "NaN"), best=1)
    assert "style" not in drawn
    assert "#" not in drawn
    assert " id=" not in drawn
    plain = {"class", "d", "cx", "cy", "r", "x", "y", "text-anchor", "viewBox", "role", "aria-label"}
    assert {name for shape in ElementTree.fromstring(drawn).iter() for name in shape.attrib} <= plain


def test_the_same_plot_gives_the_same_text() -> None:
    history = losses(0.7, 0.6, 0.5)
    assert picture(history) == picture(history)


def test_a_curve_of_many_points_stays_small() -> None:
    noise = random.Random(7)
    assert len(picture(losses(*(noise.random() for _ in range(5000))))) < 20_000


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (-3.2, 4.1, [-2, 0, 2, 4]),
        (7, 7, [6.7, 6.8, 6.9, 7, 7.1, 7.2, 7.3]),
        (0, 1e-5, [0, 2e-6, 4e-6, 6e-6, 8e-6, 1e-5]),
    ],
)
def test_the_value_axis_has_round_numbers(low: float, high: float, expected: list[float]) -> None:
    assert numbers_of_the_value_axis(picture(losses(low, high))) == expected


def test_a_logarithmic_axis_has_powers_of_ten() -> None:
    drawn = picture([{"step": 1, "grad_norm": 0.05}, {"step": 2, "grad_norm": 300.0}], chart=GRADIENTS)
    assert numbers_of_the_value_axis(drawn) == [0.1, 1, 10, 100]


def test_an_axis_that_must_show_zero_does() -> None:
    history = [{"step": step, "rewards/chosen": 5.0 + step, "rewards/rejected": 7.0} for step in (1, 2)]
    assert numbers_of_the_value_axis(picture(history, chart=REWARDS))[0] == 0
