"""Charts of a run's curves as SVG for the report: no script, coloured by the page's style sheet, readable in print."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from dporun_api.metrics import Chart, Metric, Split
from dporun_trainer.run_folder.curves import Curves, Series, smooth

WIDTH, HEIGHT = 480, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 14, 18, 26
_MAX_POINTS = 400
"""Points per line; of more, each drawn point is the mean of its neighbours."""
_NOISY = 30
"""A line of more points than this is drawn faintly, with its moving average on top."""


@dataclass(frozen=True)
class Line:
    """One line of a chart: its series, its name and the CSS class of its colour (c1 to c4)."""

    metric: Metric
    split: Split
    name: str
    colour: str


def lines(chart: Chart) -> list[Line]:
    """Lines of a chart: one metric has a colour per split, several have one each, dashed where it is training."""
    if len(chart.metrics) == 1:
        (metric,) = chart.metrics
        return [
            Line(metric, split, metric.curve_of(split), colour)
            for split, colour in zip(metric.splits, ("c1", "c2"), strict=False)
        ]
    return [
        Line(metric, split, metric.curve_of(split), f"{colour} thin" if split is Split.TRAINING else colour)
        for split in Split
        for metric, colour in zip(chart.metrics, ("c3", "c4"), strict=True)
        if split in metric.splits
    ]


def draw(chart: Chart, curves: Curves, best_step: int | None) -> str | None:
    """Draw a chart as SVG with the best checkpoint marked; None when none of its lines has two points."""
    drawn = [
        _Drawn.of(line, series, noisy=chart.noisy)
        for line in lines(chart)
        if (series := curves.get(line.metric, line.split)).finite()
    ]
    if not any(len(one.points) > 1 for one in drawn):
        return None
    axes = _Axes.of([series for one in drawn for series in (one.points, one.raw)], chart)
    parts = [axes.grid()]
    if best_step is not None and axes.first <= best_step <= axes.last:
        x = axes.x(best_step)
        anchor = "end" if x > WIDTH - 40 else "middle"
        parts.append(f'<line class="best" x1="{x}" x2="{x}" y1="{_TOP}" y2="{HEIGHT - _BOTTOM}"/>')
        parts.append(f'<text class="best" x="{x}" y="{_TOP - 6}" text-anchor="{anchor}">best</text>')
    parts += [one.svg(axes) for one in drawn]
    label = escape(f"{chart.title}: {', '.join(one.line.name for one in drawn)}", quote=True)
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


@dataclass(frozen=True)
class _Drawn:
    """A line as it is drawn: ``points``, and faintly behind a smoothed one its ``raw`` values."""

    line: Line
    points: Series
    raw: Series
    broken: tuple[int, ...]
    """Steps whose value is not a number."""

    @classmethod
    def of(cls, line: Line, series: Series, *, noisy: bool) -> "_Drawn":
        broken = [step for step, value in zip(series.steps, series.values, strict=True) if not math.isfinite(value)]
        finite = _thinned(series.finite())
        if not noisy or len(finite) <= _NOISY:
            return cls(line, finite, Series(), tuple(broken))
        average = Series(finite.steps, tuple(smooth(finite.values, span=max(5, len(finite) // 12))))
        return cls(line, average, Series() if "thin" in line.colour else finite, tuple(broken))

    def svg(self, axes: "_Axes") -> str:
        name, colour = escape(self.line.name), self.line.colour
        title = f"{name}: {_short(self.points.values[-1])} at step {self.points.steps[-1]}"
        lines = _path(self.points, colour, axes, title)
        if self.raw:
            lines = _path(self.raw, f"{colour} raw", axes, title) + lines
        if len(self.points) <= _NOISY and "thin" not in colour:
            lines += "".join(
                f'<circle class="{colour}" cx="{axes.x(step)}" cy="{axes.y(value)}" r="2.6">'
                f"<title>{name}: {_short(value)} at step {step}</title></circle>"
                for step, value in zip(self.points.steps, self.points.values, strict=True)
            )
        return lines + "".join(
            f'<text class="broken" x="{axes.x(step)}" y="{_TOP + 8}"><title>{name}: not a number at step {step}</title>'
            "!</text>"
            for step in self.broken[:50]
        )


def _path(series: Series, css: str, axes: "_Axes", title: str) -> str:
    points = " ".join(f"{axes.x(s)},{axes.y(v)}" for s, v in zip(series.steps, series.values, strict=True))
    return f'<polyline class="{css}" points="{points}"><title>{title}</title></polyline>'


def _thinned(series: Series) -> Series:
    width = math.ceil(len(series) / _MAX_POINTS)
    if width <= 1:
        return series
    groups = [slice(start, start + width) for start in range(0, len(series), width)]
    return Series(
        tuple(series.steps[group][-1] for group in groups),
        tuple(math.fsum(series.values[group]) / len(series.values[group]) for group in groups),
    )


@dataclass(frozen=True)
class _Axes:
    """Steps and values → pixels."""

    first: int
    last: int
    low: float
    high: float
    logarithmic: bool

    @classmethod
    def of(cls, series: Sequence[Series], chart: Chart) -> "_Axes":
        values = [value for one in series for value in one.values]
        steps = [step for one in series for step in one.steps]
        logarithmic = chart.logarithmic and min(values) > 0 and max(values) > 20 * min(values)
        if logarithmic:
            low, high = math.log10(min(values)), math.log10(max(values))
        else:
            low, high = min([*values, *[0.0] * chart.zero]), max([*values, *[0.0] * chart.zero])
        pad = 0.05 * (high - low) or abs(high) * 0.05 or 1.0
        return cls(min(steps), max(steps), low - pad, high + pad, logarithmic)

    def x(self, step: int) -> float:
        share = (step - self.first) / ((self.last - self.first) or 1)
        return round(_LEFT + share * (WIDTH - _LEFT - _RIGHT), 1)

    def y(self, value: float) -> float:
        position = math.log10(max(value, 1e-300)) if self.logarithmic else value
        share = (position - self.low) / (self.high - self.low)
        return round(HEIGHT - _BOTTOM - share * (HEIGHT - _TOP - _BOTTOM), 1)

    def grid(self) -> str:
        """Draw grid lines and their numbers."""
        if self.logarithmic:
            powers = range(math.ceil(self.low), math.floor(self.high) + 1)
            rows = [10.0**power for power in powers] or [10**self.low, 10**self.high]
        else:
            rows = ticks(self.low, self.high, 5)
        parts = [
            f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{self.y(v)}" y2="{self.y(v)}"/>'
            f'<text x="{_LEFT - 5}" y="{self.y(v) + 3.5:.1f}" text-anchor="end">{_short(v)}</text>'
            for v in rows
        ]
        parts += [
            f'<text x="{self.x(int(step))}" y="{HEIGHT - 8}" text-anchor="middle">{int(step)}</text>'
            for step in ticks(self.first, self.last, 6)
            if step == int(step)
        ]
        parts.append(f'<text x="{_LEFT - 5}" y="{HEIGHT - 8}" text-anchor="end">step</text>')
        return "".join(parts)


def ticks(low: float, high: float, count: int) -> list[float]:
    """About ``count`` round numbers within [low, high]."""
    if high <= low:
        return [low]
    raw = (high - low) / count
    power = 10 ** math.floor(math.log10(raw))
    step = min((size * power for size in (1, 2, 5, 10)), key=lambda size: abs(size - raw))
    return [round(index * step, 12) for index in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _short(value: float) -> str:
    return f"{value:.4g}".replace("e-0", "e-").replace("e+0", "e")
