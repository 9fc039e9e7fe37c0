"""``archive``: write the report of a run that did not get that far, then prune, upload and verify."""

import argparse
import logging

from dporun_api.results import Outcome, OutcomeState
from dporun_api.run_config import RunConfig
from dporun_trainer.archiving.archive import archive
from dporun_trainer.commands.report import report
from dporun_trainer.commands.shared import add_run_arguments, run_command
from dporun_trainer.run_folder import RunFolder

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_run_arguments(parser)
    parser.add_argument("--prune-only", action="store_true", help="delete intermediate checkpoints, upload nothing")
    parser.add_argument("--manifest-sha256", metavar="HEX", help="verify the archive that was made with this manifest")


def run(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    return run_command(
        arguments,
        lambda folder: folder.archive_outcome,
        lambda config, folder: report_and_archive(
            config, folder, prune_only=arguments.prune_only, manifest_sha256=arguments.manifest_sha256
        ),
    )


def report_and_archive(
    config: RunConfig, folder: RunFolder, *, prune_only: bool = False, manifest_sha256: str | None = None
) -> Outcome:
    """Archive a run with its report, or verify its archive; see archive for what it raises.

    A run that succeeded or was archived has its report already; that another one gets none fails nothing.
    """
    ended = folder.outcome.read()
    if manifest_sha256 is None and (ended is None or ended.state is not OutcomeState.SUCCEEDED):
        try:
            report(folder)
        except Exception as error:  # noqa: BLE001  what the run left may be anything
            log.warning("cannot write the report of a run that did not finish: %s: %s", type(error).__name__, error)
    return archive(config, folder, prune_only=prune_only, manifest_sha256=manifest_sha256)
