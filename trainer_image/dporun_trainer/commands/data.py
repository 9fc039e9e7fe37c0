"""``data``: look at preference data as prepare would, without a run."""

import argparse
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from dporun_api.dataset_report import DatasetReport
from dporun_api.pod import CLAIMS_MOUNT, ExitCode
from dporun_api.row_formats import DatasetFormat
from dporun_api.run_config import Dataset, Dpo, Model, Training
from dporun_trainer.commands.shared import explained, positive, read_config
from dporun_trainer.inputs.inspection import inspect
from dporun_trainer.reporting.dataset_text import text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.epilog = (
        f"Exit code: {ExitCode.OK} a run would take the data, {ExitCode.DATA_INVALID} it would refuse it, "
        f"or the model, {ExitCode.ERROR} it could not be looked at."
    )
    parser.add_argument("train", metavar="FILE|URI", nargs="?", help="preference data; needed without --config")
    parser.add_argument(
        "--config", type=Path, help="RunConfig, as JSON, whose data, policies, seed and model count; other flags win"
    )
    parser.add_argument("--validation", metavar="FILE|URI", help="validation data, which is compared with it")
    model = parser.add_mutually_exclusive_group()
    model.add_argument(
        "--model", metavar="DIR|URI", help="its tokenizer counts tokens and its chat template is tried; else characters"
    )
    model.add_argument("--no-model", action="store_true", help="count in characters, whatever --config says")
    parser.add_argument("--format", choices=list(DatasetFormat), type=DatasetFormat, help="of the rows")
    parser.add_argument(
        "--max-length", type=positive(int), help=f"dpo.maxLength; counts with a model; {Dpo().max_length} when absent"
    )
    parser.add_argument("--json", action="store_true", help="print dataset_report.json")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write dataset.html")
    parser.add_argument("--claims", type=Path, default=Path(CLAIMS_MOUNT), help="where pvc:// is mounted")


def run(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    if arguments.train is None and arguments.config is None:
        print("dporun-trainer: data needs FILE|URI, or --config", file=sys.stderr)
        return ExitCode.CONFIG_INVALID
    return explained(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> int:
    config = read_config(arguments.config) if arguments.config else None
    given = {name: getattr(arguments, name) for name in ("train", "validation", "format")}
    given = {name: value for name, value in given.items() if value is not None}
    dataset = config.dataset.model_copy(update=given) if config else Dataset(**given)
    model = config.model if config else None
    if arguments.model is not None:
        model = Model(uri=arguments.model)
    if arguments.no_model:
        model = None
    dpo, training = (config.dpo, config.training) if config else (Dpo(), Training())
    with (
        tempfile.TemporaryDirectory(prefix="dporun-data-") as folder,
        Console(stderr=True).status("reading") as status,  # nothing where that is no terminal
    ):
        report = inspect(
            dataset,
            Path(folder),
            model=model,
            max_length=arguments.max_length or dpo.max_length,
            seed=training.seed,
            claims=arguments.claims,
            on_progress=lambda line: status.update(escape(line)),
        )
    if arguments.html:
        _write_page(arguments.html, report)
    if arguments.json:
        sys.stdout.write(report.to_json(indent=2, exclude_none=True) + "\n")
    else:
        Console(highlight=False).print(text(report))
    return ExitCode.OK if report.refused is None else report.refused.exit_code or ExitCode.ERROR


def _write_page(path: Path, report: DatasetReport) -> None:
    from dporun_trainer.reporting.dataset_page import write_dataset_page  # noqa: PLC0415  draws with matplotlib

    write_dataset_page(path, report)
