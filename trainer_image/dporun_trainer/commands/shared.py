"""What commands have in common: the run that they work on, and how they end."""

import argparse
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError

from dporun_api import logs
from dporun_api.pod import CONFIG_PATH, RESULTS_MOUNT, ExitCode
from dporun_api.results import Outcome, OutcomeState
from dporun_api.run_config import RunConfig
from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer.errors import RunError
from dporun_trainer.outcome import conclude, exit_code, explain, failed, publish
from dporun_trainer.run_folder import RunFolder
from dporun_trainer.run_folder.files import JsonFile
from dporun_trainer.signals import Stopped


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that name a run."""
    parser.add_argument("--config", type=Path, default=Path(CONFIG_PATH), help="RunConfig, as JSON")
    parser.add_argument("--root", type=Path, default=Path(RESULTS_MOUNT), help="folder of all runs")


def add_process_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of a process that ``train`` starts."""
    parser.add_argument("--config", type=Path, required=True, help="RunConfig, as JSON")
    parser.add_argument("--directory", type=Path, required=True, help="the run's directory")


def quiet_libraries() -> None:
    """Leave out of the log what nobody but the libraries' authors can mend.

    They call what they have deprecated in one another, and PEFT looks for the ranks of experts among layers alone.
    """
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", "The following (rank|alpha)_pattern keys did not match", RuntimeWarning)


def begin_evaluation_process() -> None:
    """Have a process that evaluates for this one log nothing but warnings: this one tells what all of them do."""
    logs.configure("WARNING")
    quiet_libraries()


def read_config(path: Path) -> RunConfig:
    """Read a RunConfig.

    Raises:
        RunError: there is none.

    """
    try:
        return RunConfig.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError) as error:
        message = f"cannot read the run's configuration from {path}: {error}"
        raise RunError(Reason.INVALID_SPEC, message) from error


def run_command(
    arguments: argparse.Namespace,
    outcome_of: Callable[[RunFolder], JsonFile[Outcome]],
    command: Callable[[RunConfig, RunFolder], Outcome],
) -> ExitCode:
    """Read the RunConfig, do ``command`` and report how it ended in a file of the run's directory.

    Args:
        arguments: see add_run_arguments.
        outcome_of: the file; of the folder of all runs where the RunConfig cannot be read.
        command: does the work and returns its Outcome, or raises.

    """
    try:
        config = read_config(arguments.config)
    except RunError as error:
        outcome = failed(error)
        publish(outcome, outcome_of(RunFolder(arguments.root)).write)
        return exit_code(outcome)
    folder = RunFolder(arguments.root / config.run.directory)
    try:
        return conclude(lambda: command(config, folder), outcome_of(folder).write, folder.path)
    except Stopped:
        message = "Stopped before it was done; the next try begins where this one was."
        outcome = Outcome(state=OutcomeState.PREEMPTED, message=message)
        publish(outcome, outcome_of(folder).write)
        return exit_code(outcome)


def explained(command: Callable[[], int]) -> int:
    """Run a command that people call by hand; print its error on standard error."""
    try:
        return command()
    except (RunError, OSError) as error:
        failure = explain(error)
        print(f"dporun-trainer: {failure.message}", *filter(None, [failure.hint]), sep="\n", file=sys.stderr)
        return failure.exit_code or ExitCode.ERROR


def positive(number: type[int] | type[float]) -> Callable[[str], float]:
    """Argument type: a number above 0."""

    def parse(text: str) -> float:
        value = number(text)
        if not value > 0:
            raise argparse.ArgumentTypeError(f"{text} is not above 0")
        return value

    parse.__name__ = number.__name__
    return parse
