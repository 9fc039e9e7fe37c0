"""Draws how many rows are how long, as SVG that the page's style sheet colours."""

from collections.abc import Mapping
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from dporun_api.dataset_report import Lengths
from dporun_trainer.reporting.drawing import COLOURS, INK, MUTED, Mark, dress, picture, write


@dataclass(frozen=True)
class Bars:
    """Lengths to be drawn as bars over each other: their histograms have the same width.

    Attributes:
        title: of the chart.
        unit: of the lengths, in the plural: tokens.
        lengths: what is drawn, by its name in the legend.
        colours: of each of them, in the palette of the page: ``c1``.
        limit: dpo.maxLength, where it belongs on the chart.

    """

    title: str
    unit: str
    lengths: Mapping[str, Lengths]
    colours: tuple[str, ...]
    limit: int | None = None


def svg(bars: Bars) -> str:
    """Draw them as an SVG element; the same lengths give the same text."""
    return picture(f"{bars.title}: {', '.join(bars.lengths)}", lambda axes: _draw(axes, bars))


def _draw(axes: Axes, bars: Bars) -> Mapping[str, Mark]:
    marks = {"grid": Mark("grid"), "limit": Mark("best")}
    for index, ((name, lengths), css) in enumerate(zip(bars.lengths.items(), bars.colours, strict=True)):
        width, counts = lengths.histogram.width, lengths.histogram.counts
        for bar, count in enumerate(counts):
            if count:
                gid = f"bar-{index}-{bar}"
                axes.bar(bar * width, count, width, align="edge", color=COLOURS[css], alpha=0.2, gid=gid)
                marks[gid] = Mark(f"{css} area", f"{name}: {_rows(count)} of {_interval(lengths, bar)} {bars.unit}")
        outline = f"outline-{index}"
        edges = [bar * width for bar in range(len(counts) + 1)]
        axes.stairs(counts, edges, color=COLOURS[css], linewidth=1.2, gid=outline)
        marks[outline] = Mark(f"{css} outline")
    _scale(axes, bars)
    return marks


def _scale(axes: Axes, bars: Bars) -> None:
    histograms = [lengths.histogram for lengths in bars.lengths.values()]
    end = max(histogram.width * len(histogram.counts) for histogram in histograms)
    cut = max(lengths.maximum for lengths in bars.lengths.values()) >= end
    last = end - histograms[0].width if cut else end
    axes.set_xlim(0, end)
    axes.set_ylim(0, 1.08 * max(max(histogram.counts) for histogram in histograms))
    locator = MaxNLocator(8, steps=(1, 2, 5, 10), integer=True)
    axes.set_xticks([tick for tick in locator.tick_values(0, last) if tick <= (0.92 * last if cut else end)])
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=(1, 2, 5, 10), integer=True))
    dress(axes, "")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
    if cut:
        write(axes, f"{last:,}+", (end, 0), (0, -11), ha="right", va="top", color=MUTED)
    if bars.limit is not None and bars.limit <= last:
        axes.axvline(bars.limit, color=INK, alpha=0.7, linewidth=1, linestyle=":", gid="limit")
        align = "right" if bars.limit > 0.85 * end else "center"
        write(axes, f"maxLength {bars.limit:,}", (bars.limit, 1), (0, 5), ha=align, color=INK, gid="limit")


def _short(count: float) -> str:
    """Write a count so that it fits beside the axis."""
    return f"{count:,.0f}" if count < 10_000 else f"{count / 1000:,.0f}k"


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count:,} rows"


def _interval(lengths: Lengths, bar: int) -> str:
    width, bars = lengths.histogram.width, len(lengths.histogram.counts)
    first, last = bar * width, (bar + 1) * width - 1
    if bar == bars - 1 and lengths.maximum > last:
        return f"{first:,} to {lengths.maximum:,}"
    return f"{first:,}" if first == last else f"{first:,} to {last:,}"
