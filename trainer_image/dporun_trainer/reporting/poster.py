"""report.png: the first screen of the report as a picture, for chats and pull requests."""

import io
import math
import textwrap
from pathlib import Path
from typing import Any

from dporun_api.metrics import CHARTS
from dporun_trainer.reporting.charts import lines
from dporun_trainer.reporting.run_data import Record
from dporun_trainer.run_folder.curves import smooth

_COLOURS = {"c1": "#2563eb", "c2": "#d97706", "c3": "#059669", "c4": "#dc2626"}
_TONES = {"good": "#047857", "fair": "#b45309", "poor": "#b91c1c"}
_PANELS = ("Loss", "Rewards", "Reward margin", "Reward accuracy")
_INK, _MUTED = "#111827", "#6b7280"


def write_poster(path: Path, record: Record, *, title: str, text: str, tone: str) -> None:
    """Draw the verdict and the main curves; the same record gives the same bytes.

    Args:
        path: PNG to write.
        record: the run.
        title: verdict in one or two words.
        text: verdict in a sentence.
        tone: good, fair or poor.

    """
    import matplotlib  # noqa: PLC0415  takes a second

    matplotlib.use("agg")
    from matplotlib import pyplot  # noqa: PLC0415

    with pyplot.rc_context({"font.family": "DejaVu Sans", "font.size": 9, "axes.edgecolor": "#d1d5db"}):
        figure, axes = pyplot.subplots(2, 2, figsize=(10, 7.2), dpi=120)
        figure.subplots_adjust(left=0.06, right=0.98, top=0.77, bottom=0.06, hspace=0.42, wspace=0.14)
        figure.text(0.025, 0.945, title, fontsize=21, fontweight="bold", color=_TONES[tone], va="center")
        figure.text(0.975, 0.945, record.name, fontsize=12, color=_MUTED, va="center", ha="right", parse_math=False)
        words = textwrap.fill(text, 118, max_lines=3)
        numbers = 0.905 - 0.028 * (words.count("\n") + 1) - 0.012
        # words of others: parse_math would take $…$ for a formula
        figure.text(0.025, 0.905, words, fontsize=10.5, color=_INK, va="top", parse_math=False)
        figure.text(0.025, numbers, _numbers(record), fontsize=10, color=_MUTED, va="top")
        charts = {chart.title: chart for chart in CHARTS}
        for panel, name in zip(axes.flat, _PANELS, strict=True):
            _draw(panel, charts[name], record)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": None})
        pyplot.close(figure)
    temporary = path.with_name(f".{path.name}")
    temporary.write_bytes(buffer.getvalue())
    temporary.replace(path)


def _draw(panel: Any, chart: Any, record: Record) -> None:
    panel.set_title(chart.title, loc="left", fontsize=10.5, fontweight="bold", color=_INK)
    panel.grid(axis="y", color="#e5e7eb", linewidth=0.7)
    panel.spines[["top", "right", "left"]].set_visible(False)
    panel.tick_params(colors=_MUTED, length=0)
    drawn = 0
    for line in lines(chart):
        series = record.curves.get(line.metric, line.split).finite()
        if not series:
            continue
        drawn += 1
        colour = _COLOURS[line.colour.split()[0]]
        thin = "thin" in line.colour
        marker = "o" if len(series) <= 30 else None
        if len(series) > 30:
            panel.plot(series.steps, series.values, color=colour, alpha=0.2, linewidth=0.8)
            values = smooth(series.values, span=max(5, len(series) // 12))
        else:
            values = list(series.values)
        panel.plot(
            series.steps, values, color=colour, linewidth=1.0 if thin else 1.7, linestyle="--" if thin else "-",
            marker=marker, markersize=3.5, label=line.name,
        )  # fmt: skip
    if drawn == 0:
        panel.text(0.5, 0.5, "no data", transform=panel.transAxes, ha="center", color=_MUTED)
        return
    if record.best is not None and math.isfinite(record.best.step):
        panel.axvline(
            record.best.step,
            color=_MUTED,
            linewidth=1,
            linestyle=":",
            label="best checkpoint" if chart.title == "Loss" else None,
        )
    panel.legend(frameon=False, fontsize=8, labelcolor=_MUTED)


def _numbers(record: Record) -> str:
    m = record.metrics
    parts = []
    if "accuracy" in m:
        parts.append(f"accuracy {100 * m['accuracy']:.1f} %")
    if "reward_margin" in m:
        parts.append(f"margin {m['reward_margin']:.2f}")
    if m.get("compared"):
        parts.append(f"answers better {m.get('better', 0)}, worse {m.get('worse', 0)}, equal {m.get('equal', 0)}")
    if m.get("forgetting") is not None:
        parts.append(f"forgetting {100 * m['forgetting']:.1f} %")
    if record.health:
        parts.append(f"health {record.health.state}")
    return "   ·   ".join(parts)
