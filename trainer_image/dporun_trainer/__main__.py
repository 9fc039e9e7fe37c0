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


if __name__ == "__main__":
    sys.exit(main())
