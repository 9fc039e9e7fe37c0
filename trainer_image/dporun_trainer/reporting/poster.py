"""report.png: the first screen of the report as a picture, for chats and pull requests."""

import io
import textwrap
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from dporun_api.metrics import CHARTS
from dporun_trainer.reporting.charts import plot
from dporun_trainer.reporting.drawing import INK, MUTED, STYLE, draw
from dporun_trainer.reporting.first_screen import Headline, Tile
from dporun_trainer.reporting.run_data import RunData

_TONES = {"good": "#047857", "fair": "#b45309", "poor": "#b91c1c"}


def write_poster(path: Path, record: RunData, head: Headline, tiles: Sequence[Tile]) -> None:
    """Draw the headline, the numbers and the first four charts; the same record gives the same bytes."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10, 7.2), dpi=120)
        panels = figure.subplots(2, 2).flat
        figure.subplots_adjust(left=0.06, right=0.98, top=0.77, bottom=0.06, hspace=0.42, wspace=0.14)
        _write_head(figure, record, head, tiles)
        for panel, chart in zip(panels, CHARTS, strict=False):
            panel.set_title(chart.title, loc="left", fontsize=10.5, fontweight="bold", color=INK, pad=16)
            filled = plot(chart, record.curves, record.best_step)
            if filled is None:
                panel.set_axis_off()
                panel.text(0.5, 0.5, "no data", transform=panel.transAxes, ha="center", color=MUTED)
            else:
                draw(panel, filled)
                panel.legend(frameon=False, fontsize=8, labelcolor=MUTED)
        picture = io.BytesIO()
        figure.savefig(picture, format="png", metadata={"Software": None})
    temporary = path.with_name(f".{path.name}")
    temporary.write_bytes(picture.getvalue())
    temporary.replace(path)


def _write_head(figure: Figure, record: RunData, head: Headline, tiles: Sequence[Tile]) -> None:
    figure.text(0.025, 0.945, head.title, fontsize=21, fontweight="bold", color=_TONES[head.tone], va="center")
    # Without parse_math, matplotlib takes $…$ in names and messages for a formula.
    figure.text(0.975, 0.945, record.name, fontsize=12, color=MUTED, va="center", ha="right", parse_math=False)
    text = textwrap.fill(head.text, 118, max_lines=3)
    figure.text(0.025, 0.905, text, fontsize=10.5, color=INK, va="top", parse_math=False)
    numbers = [f"{tile.name.lower()} {tile.value}" for tile in tiles]
    if record.health:
        numbers.append(f"health {record.health.state}")
    below = 0.905 - 0.028 * (text.count("\n") + 1) - 0.012
    figure.text(0.025, below, "   ·   ".join(numbers), fontsize=10, color=MUTED, va="top")
