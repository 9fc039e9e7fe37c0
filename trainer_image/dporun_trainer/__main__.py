"""``dporun-trainer``: the commands of the trainer image. Heavy imports happen inside the command that needs them."""

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import ValidationError

from dporun_trainer.contract import layout
from dporun_trainer.contract.config import RunConfig
from dporun_trainer.contract.results import ExitCode, FailureReason, Outcome
from dporun_trainer.errors import RunError
from dporun_trainer.outcome import conclude, exit_code, failed, publish


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = _parser().parse_args(argv)
    logging.basicConfig(
        level=os.environ.get("DPORUN_LOG_LEVEL", "INFO"), format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )
    return int(arguments.run(arguments))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="dporun-trainer", description=__doc__)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def of_run(name: str, run: object, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("--config", type=Path, default=Path(layout.CONFIG_PATH), help="RunConfig, as JSON")
        command.add_argument("--root", type=Path, default=Path(layout.RESULTS_MOUNT), help="folder of all runs")
        command.set_defaults(run=run)
        return command

    prepare = of_run("prepare", _prepare, "fetch and check model and data, before a GPU is held")
    prepare.add_argument("--claims", type=Path, default=Path(layout.CLAIMS_MOUNT), help="where pvc:// is mounted")
    train = of_run("train", _train, "train, evaluate, judge and report (PID 1 of the training pod)")
    train.add_argument("--port", type=int, default=layout.STATUS_PORT, help="port of the status server; 0 for none")
    archive = of_run("archive", _archive, "prune, upload, verify")
    archive.add_argument("--prune-only", action="store_true", help="delete intermediate checkpoints, upload nothing")

    text = "say how healthy a training run is, of DPORun or of TRL, and what to change"
    diagnose = commands.add_parser("diagnose", help=text, description=text, epilog=_DIAGNOSE_EXIT_CODES)
    diagnose.add_argument("directory", type=Path, metavar="DIR", help="output folder of the run")
    form = diagnose.add_mutually_exclusive_group()
    form.add_argument("--json", dest="form", action="store_const", const="json", help="print the diagnosis as JSON")
    form.add_argument(
        "--patch", dest="form", action="store_const", const="patch", help="print the changes as a patch of the manifest"
    )
    diagnose.set_defaults(run=_diagnose, form="text")

    text = "write report.html, report.png and the model card (README.md) of a run"
    report = commands.add_parser("report", help=text, description=text)
    report.add_argument("directory", type=Path, metavar="DIR", help="directory of the run")
    report.set_defaults(run=_report)
    return parser


def _conclude(arguments: argparse.Namespace, file: str, command: Callable[[RunConfig, Path], Outcome]) -> ExitCode:
    """Read the RunConfig, run ``command`` on it and tell how that ended in ``file`` of the run's directory."""
    try:
        config = RunConfig.model_validate_json(arguments.config.read_text(encoding="utf-8"))
    except (OSError, ValidationError) as error:
        message = f"cannot read the run's configuration from {arguments.config}: {error}"
        outcome = failed(RunError(FailureReason.INVALID_SPEC, message))
        publish(outcome, arguments.root / file)
        return exit_code(outcome)
    directory = arguments.root / config.run.directory
    return conclude(lambda: command(config, directory), directory / file)


def _prepare(arguments: argparse.Namespace) -> ExitCode:
    from dporun_trainer.prepare import prepare  # noqa: PLC0415

    return _conclude(
        arguments,
        "prepare_outcome.json",
        lambda config, directory: prepare(config, directory, claims=arguments.claims),
    )


def _train(arguments: argparse.Namespace) -> ExitCode:
    from dporun_trainer.launch import launch  # noqa: PLC0415

    return _conclude(
        arguments,
        str(layout.OUTCOME),
        lambda config, directory: launch(config, arguments.config, directory, port=arguments.port),
    )


def _archive(arguments: argparse.Namespace) -> ExitCode:
    from dporun_trainer.archive import archive  # noqa: PLC0415

    return _conclude(
        arguments,
        "archive_outcome.json",
        lambda config, directory: archive(config, directory, prune_only=arguments.prune_only),
    )


_DIAGNOSE_EXIT_CODES = (
    "Exit code: 0 OnTrack, 3 Unknown (too little history), 10 Overfitting, 11 Underfitting, 12 Unstable, 13 Confused, "
    "1 nothing to diagnose in DIR."
)


def _diagnose(arguments: argparse.Namespace) -> int:
    from dporun_trainer.diagnose import diagnose  # noqa: PLC0415

    return _explained(lambda: diagnose(arguments.directory, form=arguments.form))


def _report(arguments: argparse.Namespace) -> int:
    from dporun_trainer.report import write_report  # noqa: PLC0415

    def run() -> int:
        write_report(arguments.directory)
        print(arguments.directory / layout.REPORT_HTML)
        return ExitCode.OK

    return _explained(run)


def _explained(command: Callable[[], int]) -> int:
    """Run a command that people call by hand; tell its error on standard error."""
    try:
        return command()
    except RunError as error:
        print(f"dporun-trainer: {error.message}", *filter(None, [error.hint]), sep="\n", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
