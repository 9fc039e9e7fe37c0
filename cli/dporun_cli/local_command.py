"""The command line's side of ``dporun run --local``."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from dporun_api.pod import Command, ExitCode
from dporun_api.results import OutcomeState
from dporun_cli.local_config import LocalConfigError, local_config, parse_maps
from dporun_cli.local_run import LocalRun, OtherRunError
from dporun_cli.manifest import Manifest
from dporun_cli.summary import show_failure, show_result
from dporun_cli.view import shown


def run(manifest: Manifest, root: Path, maps: Sequence[str], processes: int | None) -> ExitCode:
    """Run ``manifest`` below ``root``, show its progress and its result, and return the exit code."""
    console = Console(highlight=False)
    try:
        config = local_config(manifest, root, parse_maps(maps), processes=processes)
        title = f"{config.run.name} in {root / config.run.directory}"
        with shown(console, title) as view:
            local = LocalRun(config, root, view)
            code = local.run()
    except (LocalConfigError, OtherRunError) as error:
        for line in str(error).splitlines():
            console.print(line, markup=False, soft_wrap=True, style="red")
        return ExitCode.CONFIG_INVALID
    except OSError as error:
        text = f"--local {root}: cannot write results there: {error.strerror or error}"
        console.print(text, markup=False, soft_wrap=True, style="red")
        return ExitCode.ERROR
    _show_end(console, local, code)
    return code


def _show_end(console: Console, local: LocalRun, code: ExitCode) -> None:
    trained, archived = local.outcome(Command.TRAIN), local.outcome(Command.ARCHIVE)
    if trained and trained.state is OutcomeState.SUCCEEDED:
        show_result(console, local.directory, trained, archived)
    failed = _failed(local)
    if code not in {ExitCode.OK, ExitCode.PREEMPTED} and failed:
        outcome = local.outcome(failed)
        show_failure(console, outcome.failure if outcome else None, local.log(failed))


def _failed(local: LocalRun) -> Command | None:
    """The first command that ran and did not succeed."""
    for command in Command:
        outcome = local.outcome(command)
        if local.log(command).exists() and (outcome is None or outcome.state is not OutcomeState.SUCCEEDED):
            return command
    return None
