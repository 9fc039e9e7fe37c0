"""``diagnose``: print how healthy a run of DPORun or of another program is, and what to change."""

import argparse
import dataclasses
import itertools
import math
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic.alias_generators import to_camel

from dporun_api.document import Document
from dporun_api.metrics import GRADIENT_NORM, LOSS, REWARD_ACCURACY, REWARD_MARGIN, Split
from dporun_api.pod import ExitCode
from dporun_api.results import Health, HealthState
from dporun_trainer.commands.shared import explained
from dporun_trainer.diagnosis.health import examine
from dporun_trainer.diagnosis.measurements import Measurements
from dporun_trainer.diagnosis.remedies import RunValues
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

_NO_PLAN = "How long the run was to be is not recorded, so it is judged as one that has ended."
_BARS = "▁▂▃▄▅▆▇█"
_LEVEL = 0.02
"""Share of its values within which a curve is drawn level."""
_COLOURS = {HealthState.ON_TRACK: "32", HealthState.UNKNOWN: "2", HealthState.UNSTABLE: "31"}
_SPARKLINES = (
    (LOSS, Split.TRAINING),
    (LOSS, Split.VALIDATION),
    (REWARD_MARGIN, Split.VALIDATION),
    (REWARD_ACCURACY, Split.VALIDATION),
    (GRADIENT_NORM, Split.TRAINING),
)


class RunPosition(Document):
    """How far a run is."""

    step: int
    """Newest optimizer step."""
    total_steps: int | None = None
    """Optimizer steps in all; absent where they are not recorded."""
    epoch: float | None = None
    """Passes over the training data so far."""
    epochs: float | None = None
    """Passes in all."""
    share: float | None = None
    """Share of the plan that is done; absent where no plan is recorded."""
    finished: bool | None = None
    """Whether the run has ended; absent where nothing tells, and then it is judged as if it had."""

    @classmethod
    def of(cls, run: Measurements) -> "RunPosition":
        """Compare the newest step with the plan."""
        known = run.has_ended or run.planned is not None
        return cls(
            step=run.curves.last_step,
            total_steps=run.settings.total_steps,
            epoch=run.curves.last_epoch,
            epochs=run.settings.epochs,
            share=None if run.planned is None else min(run.planned, 1.0),
            finished=run.finished if known else None,
        )

    def __str__(self) -> str:
        """Write it: ``step 60 of 240, epoch 1 of 4, 25 %``."""
        parts = [f"step {self.step}" + (f" of {self.total_steps}" if self.total_steps else "")]
        if self.epoch is not None:
            parts.append(f"epoch {self.epoch:.3g}" + (f" of {self.epochs:.3g}" if self.epochs else ""))
        if self.share is not None:
            parts.append(f"{math.floor(100 * self.share)} %")
        if self.finished and (self.share is None or self.share < 1):
            parts.append("ended")
        return ", ".join(parts)


class Diagnosis(Health):
    """What ``--json`` prints: the health and what it rests on."""

    source: str
    """File or folder from which the history was read."""
    position: RunPosition
    settings: dict[str, object]
    """The run's values that are known, by their names in the manifest."""
    notes: tuple[str, ...] = ()
    """What cannot be seen, and why."""


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
    if found.objection is None:
        health = examine(curves, found.settings)
    else:
        health = Health(state=HealthState.UNKNOWN, evidence=(found.objection,))
    if form == "json":
        text = _document(found, curves, health).to_json(indent=2, exclude_none=True) + "\n"
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

    position = RunPosition.of(Measurements(curves, run.settings))
    source = run.source.relative_to(directory) if run.source != directory else "TensorBoard logs"
    yield style(f"1;{_COLOURS.get(health.state, '33')}", str(health.state)) + f"  {directory}"
    yield style("2", f"{str(position).capitalize()}, read from {source}")
    yield from (style("2", line) for line in textwrap.wrap(_settings(run.settings), width))
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
    unseen = [*run.notes, *([_NO_PLAN] if position.finished is None else [])]
    if unseen:
        yield ""
        yield style("1", "What cannot be seen")
    for note in unseen:
        yield textwrap.fill(note, width, initial_indent="  • ", subsequent_indent="    ")
    if health.suggestions:
        yield ""
        yield style("1", "What to change")
        for suggestion in health.suggestions:
            yield "  " + style("36", describe(suggestion))
            yield textwrap.fill(suggestion.reason, width, initial_indent="      ", subsequent_indent="      ")
        yield ""
        yield style("2", f"For a patch of the manifest, run: dporun-trainer diagnose {directory} --patch")


def _document(run: RecordedRun, curves: Curves, health: Health) -> Diagnosis:
    settings = {to_camel(name): value for name, value in dataclasses.asdict(run.settings).items() if value is not None}
    return Diagnosis(
        **dict(health),
        source=str(run.source),
        position=RunPosition.of(Measurements(curves, run.settings)),
        settings=settings,
        notes=run.notes,
    )


def _settings(values: RunValues) -> str:
    """Write the values that are known and that suggestions change."""
    named: dict[str, object] = {
        "learning rate": values.learning_rate,
        "batch per device": values.per_device_batch_size,
        "gradient accumulation": values.gradient_accumulation_steps,
        "processes": values.processes,
        "beta": values.beta,
        "loss": " + ".join(values.loss) if values.loss else None,
        "label smoothing": values.label_smoothing or None,
        "gradients clipped at": values.max_grad_norm or None,
        "LoRA rank": values.lora_rank,
        "alpha": values.lora_alpha,
        "dropout": values.lora_dropout,
    }
    known = [f"{name} {_short(value)}" for name, value in named.items() if value is not None]
    return known[0][0].upper() + ", ".join(known)[1:] if known else ""


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def sparkline(series: Series, width: int) -> str:
    """Draw a curve in one line of at most ``width`` characters; ``!`` is a value that is not finite."""
    finite = series.finite().values
    if not finite:
        return "!" * min(width, len(series))
    low, high = min(finite), max(finite)
    span = max(high - low, _LEVEL * max(abs(low), abs(high))) or 1.0

    def bar(values: Sequence[float]) -> str:
        if not all(map(math.isfinite, values)):
            return "!"
        share = (math.fsum(values) / len(values) - low) / span
        return _BARS[min(int(share * len(_BARS)), len(_BARS) - 1)]

    count = min(width, len(series))
    edges = [index * len(series) // count for index in range(count + 1)]
    return "".join(bar(series.values[start:end]) for start, end in itertools.pairwise(edges))
