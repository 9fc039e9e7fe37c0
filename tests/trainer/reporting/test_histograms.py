"""Histograms as SVG."""

from xml.etree import ElementTree

from dporun_api.dataset_report import Histogram, Lengths
from dporun_testing.dataset_reports import PROMPTS, RESPONSES
from dporun_trainer.reporting.histograms import Bars, svg


def shapes(drawn: str, css: str) -> list[ElementTree.Element]:
    return [shape for shape in ElementTree.fromstring(drawn).iter() if shape.get("class") == css]


def texts(drawn: str) -> list[str | None]:
    return [shape.text for shape in ElementTree.fromstring(drawn).iter("text")]


def test_every_bar_says_what_it_stands_for() -> None:
    drawn = svg(Bars("Prompts", "tokens", {"prompt": PROMPTS}, ("c1",)))
    assert [bar.findtext("title") for bar in shapes(drawn, "c1 area")] == [
        "prompt: 10 rows of 0 to 9 tokens",
        "prompt: 40 rows of 10 to 19 tokens",
        "prompt: 30 rows of 30 to 39 tokens",
        "prompt: 20 rows of 40 to 96 tokens",
    ]
    assert len(shapes(drawn, "c1 outline")) == 1


def test_an_axis_that_is_cut_says_so() -> None:
    drawn = svg(Bars("Responses", "tokens", {"chosen": RESPONSES, "rejected": PROMPTS}, ("c3", "c4")))
    assert "2,000+" in texts(drawn)
    assert {"c3 area", "c4 area"} <= {shape.get("class") for shape in ElementTree.fromstring(drawn).iter()}


def test_the_limit_is_marked_where_it_is_on_the_chart() -> None:
    def marked(limit: int) -> bool:
        return "maxLength 1,024" in texts(svg(Bars("All", "tokens", {"all": RESPONSES}, ("c1",), limit)))

    assert marked(1024)
    assert not marked(4096)


def test_a_single_row_is_drawn() -> None:
    one = Lengths(mean=0, p50=0, p90=0, p99=0, maximum=0, histogram=Histogram(width=1, counts=(1,)))
    drawn = svg(Bars("Prompts", "words", {"prompt": one}, ("c1",)))
    assert [bar.findtext("title") for bar in shapes(drawn, "c1 area")] == ["prompt: 1 row of 0 words"]
