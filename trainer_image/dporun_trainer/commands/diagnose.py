"""``diagnose``: print how healthy a run of DPORun or of another program is, and what to change."""

import argparse
import itertools
import math
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

from dporun_api.metrics import GRADIENT_NORM, LOSS, REWARD_ACCURACY, REWARD_MARGIN, Split
from dporun_api.pod import ExitCode
from dporun_api.results import Health, HealthState
from dporun_trainer.commands.shared import explained
from dporun_trainer.diagnosis.health import examine
from dporun_trainer.diagnosis.run_reader import RecordedRun, read_run
from dporun_trainer.run_folder.curves import Curves, Series
from dporun_trainer.suggestions import describe, patch

EXIT_CODES = {
    HealthState.ON_TRACK: 0,
    HealthState.UNKNOWN: 3,
    HealthState.OVERFITTING: 10,
    HealthState.UNDERFITTING: 11,
    HealthState.UNSTABLE: 12,
    HealthState.CONFUSED: 13,
}
"""Exit code by state; 1 is a folder that cannot be read."""

_BARS = "▁▂▃▄▅▆▇█"
_COLOURS = {HealthState.ON_TRACK: "32", HealthState.UNKNOWN: "2", HealthState.UNSTABLE: "31"}
_SPARKLINES = (
    (LOSS, Split.TRAINING),
    (LOSS, Split.VALIDATION),
    (REWARD_MARGIN, Split.VALIDATION),
    (REWARD_ACCURACY, Split.VALIDATION),
    (GRADIENT_NORM, Split.TRAINING),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    codes = ", ".join(f"{code} {state}" for state, code in EXIT_CODES.items())
    parser.epilog = f"Exit code: {codes}, {ExitCode.ERROR} nothing to diagnose in DIR."
    parser.add_argument("directory", type=Path, metavar="DIR", help="output folder of the run")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", dest="form", action="store_const", const="json", help="print the diagnosis as JSON")
    form.add_argument(
        "--patch", dest="form", action="store_const", const="patch", help="print the changes as a patch of the manifest"
    )
    parser.set_defaults(form="text")


def run(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit code; see EXIT_CODES."""
    return explained(lambda: _diagnose(arguments.directory, arguments.form))


def _diagnose(directory: Path, form: str) -> int:
    found = read_run(directory)
    curves = Curves.of(found.history)
    health = examine(curves, found.settings)
    if form == "json":
        text = health.to_json(indent=2, exclude_none=True) + "\n"
    elif form == "patch":
        text = f"# {health.state}: {directory}\n{patch(health.suggestions)}"
    else:
        width = min(shutil.get_terminal_size((100, 24)).columns, 100)
        text = "\n".join(_lines(directory, found, curves, health, width=width, colour=sys.stdout.isatty())) + "\n"
    sys.stdout.write(text)
    return EXIT_CODES[health.state]


def _lines(
    directory: Path, run: RecordedRun, curves: Curves, health: Health, *, width: int, colour: bool
) -> Iterator[str]:
    def style(code: str, text: str) -> str:
        return f"\033[{code}m{text}\033[0m" if colour else text

    epochs = "" if curves.last_epoch is None else f", {curves.last_epoch:.3g} epochs"
    source = run.source.relative_to(directory) if run.source != directory else "TensorBoard logs"
    yield style(f"1;{_COLOURS.get(health.state, '33')}", str(health.state)) + f"  {directory}"
    yield style("2", f"{curves.last_step} steps{epochs}, read from {source}")
    yield ""
    for metric, split in _SPARKLINES:
        series = curves.get(metric, split)
        if len(series) > 1:
            first, last = series.values[0], series.values[-1]
            yield f"  {metric.label_of(split):<27} {sparkline(series, 32):<32}  {first:.3g} → {last:.3g}"
    yield ""
    yield style("1", "Evidence")
    for evidence in health.evidence:
        yield textwrap.fill(evidence, width, initial_indent="  • ", subsequent_indent="    ")
    if health.suggestions:
        yield ""
        yield style("1", "What to change")
        for suggestion in health.suggestions:
            yield "  " + style("36", describe(suggestion))
            yield textwrap.fill(suggestion.reason, width, initial_indent="      ", subsequent_indent="      ")
        yield ""
        yield style("2", f"For a patch of the manifest, run: dporun-trainer diagnose {directory} --patch")


def sparkline(series: Series, width: int) -> str:
    """Draw a curve in one line of at most ``width`` characters; ``!`` is a value that is not finite."""
    finite = series.finite().values
    if not finite:
        return "!" * min(width, len(series))
    low, high = min(finite), max(finite)

    def bar(values: Sequence[float]) -> str:
        if not all(map(math.isfinite, values)):
            return "!"
        share = (math.fsum(values) / len(values) - low) / ((high - low) or 1.0)
        return _BARS[min(int(share * len(_BARS)), len(_BARS) - 1)]

    count = min(width, len(series))
    edges = [index * len(series) // count for index in range(count + 1)]
    return "".join(bar(series.values[start:end]) for start, end in itertools.pairwise(edges))
