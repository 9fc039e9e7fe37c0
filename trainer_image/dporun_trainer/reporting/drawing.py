"""Draws the charts with matplotlib: for the poster, and as SVG that the report's style sheet colours."""

import io
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from dporun_trainer.reporting.charts import Line, Plot

STYLE = {"font.family": "DejaVu Sans", "font.size": 9, "svg.fonttype": "none", "svg.hashsalt": "dporun"}
"""Settings of matplotlib for everything that is drawn."""
INK, MUTED, RULE = "#111827", "#6b7280", "#e5e7eb"
COLOURS = {"c1": "#2563eb", "c2": "#d97706", "c3": "#059669", "c4": "#dc2626"}

_WIDTH, _HEIGHT = 480, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 14, 18, 26
"""Margins of an SVG, for the numbers of its axes and the mark of the best checkpoint."""
_SVG = "{http://www.w3.org/2000/svg}"


@dataclass(frozen=True)
class Mark:
    """How the report shows something that was drawn: its CSS classes, its tooltip and one for each of its dots."""

    css: str
    tooltip: str = ""
    dots: tuple[str, ...] = ()


def svg(plot: Plot) -> str:
    """Draw a plot as an SVG element without colours, sizes of text and ids; the same plot gives the same text."""
    return picture(f"{plot.title}: {', '.join(line.name for line in plot.lines)}", lambda axes: draw(axes, plot))


def picture(label: str, draw: Callable[[Axes], Mapping[str, Mark]]) -> str:
    """Draw into an SVG element that the page's style sheet colours.

    Args:
        label: what the picture shows, for those who do not see it.
        draw: draws into axes, and returns how the page shows what was drawn, by the id of its group.

    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(_WIDTH / 72, _HEIGHT / 72))  # in inches of 72 points, the unit of SVG
        figure.patch.set_visible(False)
        width, height = 1 - (_LEFT + _RIGHT) / _WIDTH, 1 - (_TOP + _BOTTOM) / _HEIGHT
        marks = draw(figure.add_axes((_LEFT / _WIDTH, _BOTTOM / _HEIGHT, width, height)))
        drawn = io.StringIO()
        figure.savefig(drawn, format="svg", metadata={"Date": None})
    element = Element("svg", {"viewBox": f"0 0 {_WIDTH} {_HEIGHT}", "role": "img", "aria-label": label})
    _copy(ElementTree.fromstring(drawn.getvalue()), element, marks, Mark(""))  # noqa: S314  matplotlib's
    return ElementTree.tostring(element, encoding="unicode")


def draw(axes: Axes, plot: Plot) -> Mapping[str, Mark]:
    """Draw a plot in the colours of a light page.

    Returns:
        How the report shows what was drawn, by the id of its group in matplotlib's SVG.

    """
    marks = {"grid": Mark("grid"), "best": Mark("best")}
    for index, line in enumerate(plot.lines):
        marks |= dict(_draw_line(axes, line, f"line-{index}"))
    _scale(axes, plot)
    if plot.best is not None:
        first, last = plot.steps
        axes.axvline(plot.best, color=INK, alpha=0.7, linewidth=1, linestyle=":", gid="best")
        align = "right" if plot.best > last - 0.08 * (last - first) else "center"
        write(axes, "best", (plot.best, 1), (0, 5), ha=align, color=INK, weight="bold", gid="best")
    return marks


def _draw_line(axes: Axes, line: Line, gid: str) -> Iterator[tuple[str, Mark]]:
    css, colour = f"{line.colour} thin" if line.secondary else line.colour, COLOURS[line.colour]
    tooltips = tuple(
        f"{line.name}: {_short(value)} at step {step}"
        for step, value in zip(line.points.steps, line.points.values, strict=True)
    )
    if line.raw:
        raw = f"{gid}-raw"
        axes.plot(line.raw.steps, line.raw.values, color=colour, alpha=0.25, linewidth=0.8, clip_on=False, gid=raw)
        yield raw, Mark(f"{css} raw", tooltips[-1])
    axes.plot(
        line.points.steps, line.points.values, label=line.name, color=colour, clip_on=False, gid=gid,
        linewidth=1.0 if line.secondary else 1.7, linestyle="--" if line.secondary else "-",
        marker="o" if line.dotted else None, markersize=3.5,
    )  # fmt: skip
    yield gid, Mark(css, "".join(tooltips[-1:]), tooltips if line.dotted else ())
    for step in line.gaps:
        gap = f"{gid}-gap-{step}"
        write(axes, "!", (step, 1), (0, -8), ha="center", color=COLOURS["c4"], weight="bold", gid=gap)
        yield gap, Mark("gap", f"{line.name}: not a number at step {step}")


def _scale(axes: Axes, plot: Plot) -> None:
    """Set limits, round numbers on both axes and lines across."""
    first, last = plot.steps
    axes.set_xlim(first, last)
    axes.xaxis.set_major_locator(MaxNLocator(8, steps=(1, 2, 5, 10), integer=True))
    axes.margins(y=0.05)
    if plot.zero:
        axes.update_datalim([(first, 0)])
    if plot.logarithmic:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(numticks=6))
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        axes.yaxis.set_major_locator(MaxNLocator(7, steps=(1, 2, 5, 10), min_n_ticks=4))
    axes.autoscale_view(scalex=False)
    dress(axes, "step")


def dress(axes: Axes, unit: str) -> None:
    """Give axes with limits and ticks the looks of a chart: no frame, lines across, ``unit`` below."""
    axes.patch.set_visible(False)
    axes.spines[:].set_visible(False)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
    low, high = axes.get_ylim()
    axes.set_yticks([tick for tick in axes.get_yticks() if low <= tick <= high])
    axes.tick_params(axis="x", bottom=False, length=0, pad=11, labelcolor=MUTED)
    axes.tick_params(axis="y", left=False, length=0, pad=5, labelcolor=MUTED)
    axes.grid(axis="y", color=RULE, linewidth=0.7)
    for rule in axes.get_ygridlines():
        rule.set_gid("grid")
    write(axes, unit, (axes.get_xlim()[0], 0), (-5, -11), ha="right", va="top", color=MUTED)


def write(axes: Axes, text: str, place: tuple[float, float], shift: tuple[float, float], **style: Any) -> None:
    """Write at a place of the x-axis and a share of the height, shifted by points."""
    axes.annotate(
        text, place, xycoords=axes.get_xaxis_transform(), xytext=shift, textcoords="offset points",
        annotation_clip=False, **style,
    )  # fmt: skip


def _copy(source: Element, target: Element, marks: Mapping[str, Mark], mark: Mark) -> None:
    """Copy shapes and texts with their places and marks alone: the page's style sheet decides how they look."""
    dots = iter(mark.dots)
    for child in source:
        match child.tag.removeprefix(_SVG):
            case "g":
                _copy(child, target, marks, marks.get(child.get("id", ""), mark))
            case "path":
                _add(target, "path", mark.css, mark.tooltip, d=_rounded(child.get("d", "")))
            case "use":
                place = {"cx": _rounded(child.get("x", "")), "cy": _rounded(child.get("y", ""))}
                _add(target, "circle", mark.css, next(dots, ""), **place, r="2.6")
            case "text":
                (anchor,) = re.findall(r"text-anchor: (\w+)", child.get("style", ""))
                place = {"x": _rounded(child.get("x", "")), "y": _rounded(child.get("y", ""))}
                _add(target, "text", mark.css, mark.tooltip, **place, **{"text-anchor": anchor}).text = child.text


def _add(target: Element, tag: str, css: str, tooltip: str, **attributes: str) -> Element:
    element = SubElement(target, tag, {**({"class": css} if css else {}), **attributes})
    if tooltip:
        SubElement(element, "title").text = tooltip
    return element


def _rounded(places: str) -> str:
    """Round the numbers of a path to a tenth of a point."""
    return re.sub(r"-?\d+\.\d+", lambda number: f"{float(number[0]):.1f}".removesuffix(".0"), " ".join(places.split()))


def _short(value: float) -> str:
    return f"{value:.4g}".replace("e-0", "e-").replace("e+0", "e")
