"""What the charts of a run show: lines, marks and scales, as plain data. ``drawing`` draws it. Pure."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from dporun_api.metrics import Chart, Split
from dporun_trainer.run_folder.curves import Curves, Series, smooth

MAX_POINTS = 400
"""Points per line; of more, each drawn point is the mean of its neighbours."""
SMOOTH_FROM = 30
"""A line of more points than this is smoothed; one of fewer has a dot at each point."""
MAX_GAPS = 50
"""Values that are not numbers and are marked, per line."""

_COLOURS_OF_SPLITS = {Split.TRAINING: "c1", Split.VALIDATION: "c2"}
_COLOURS_OF_METRICS = ("c3", "c4")


@dataclass(frozen=True)
class Line:
    """One curve of a chart."""

    name: str
    """Name in the legend."""
    colour: str
    """Colour of the palette, ``c1`` to ``c4``."""
    points: Series
    """What is drawn: finite values, thinned and maybe smoothed."""
    raw: Series = field(default_factory=Series)
    """Finite values before smoothing, to be drawn faintly behind; empty when nothing was smoothed away."""
    gaps: tuple[int, ...] = ()
    """Steps whose value is not a number."""
    secondary: bool = False
    """Whether it stands back behind a line of the same colour: dashed and without dots."""

    @property
    def dotted(self) -> bool:
        """Whether each point has a dot."""
        return len(self.points) <= SMOOTH_FROM and not self.secondary


@dataclass(frozen=True)
class Plot:
    """A chart with the curves of a run."""

    title: str
    lines: tuple[Line, ...]
    logarithmic: bool = False
    zero: bool = False
    """Whether the axis must show 0."""
    best: int | None = None
    """Step of the best checkpoint, where the plot reaches it."""

    @property
    def steps(self) -> tuple[int, int]:
        """First and last step of the lines."""
        steps = [step for line in self.lines for step in (*line.points.steps, *line.raw.steps, *line.gaps)]
        return min(steps), max(steps)


def plot(chart: Chart, curves: Curves, best_step: int | None) -> Plot | None:
    """Fill a chart with the curves of a run; None when no line has two points."""
    lines = tuple(_lines(chart, curves))
    if not any(len(line.points) > 1 for line in lines):
        return None
    values = [value for line in lines for series in (line.points, line.raw) for value in series.values]
    drawn = Plot(
        title=chart.title,
        lines=lines,
        logarithmic=chart.logarithmic and min(values) > 0 and max(values) > 20 * min(values),
        zero=chart.zero,
    )
    first, last = drawn.steps
    return replace(drawn, best=best_step) if best_step is not None and first <= best_step <= last else drawn


def _lines(chart: Chart, curves: Curves) -> Iterator[Line]:
    """A single metric has a colour per split; of several, each has a colour, and its training line stands back."""
    alone = len(chart.metrics) == 1
    for split in Split:
        for metric, colour in zip(chart.metrics, _COLOURS_OF_METRICS, strict=False):
            series = curves.get(metric, split)
            if series:
                yield _line(
                    metric.curve_of(split),
                    series,
                    colour=_COLOURS_OF_SPLITS[split] if alone else colour,
                    secondary=not alone and split is Split.TRAINING,
                    noisy=chart.noisy,
                )


def _line(name: str, series: Series, *, colour: str, secondary: bool, noisy: bool) -> Line:
    gaps = tuple(step for step, value in zip(series.steps, series.values, strict=True) if not math.isfinite(value))
    line = Line(name, colour, _thinned(series.finite()), gaps=gaps[:MAX_GAPS], secondary=secondary)
    if not noisy or len(line.points) <= SMOOTH_FROM:
        return line
    raw = line.points
    average = Series(raw.steps, tuple(smooth(raw.values, span=max(5, len(raw) // 12))))
    return replace(line, points=average, raw=Series() if secondary else raw)


def _thinned(series: Series) -> Series:
    width = math.ceil(len(series) / MAX_POINTS)
    if width <= 1:
        return series
    groups = [slice(start, start + width) for start in range(0, len(series), width)]
    return Series(
        tuple(series.steps[group][-1] for group in groups),
        tuple(math.fsum(series.values[group]) / len(series.values[group]) for group in groups),
    )
