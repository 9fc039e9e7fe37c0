"""``prepare``: fetch and check model and data."""

import argparse
import logging
from pathlib import Path

from dporun_api.pod import CLAIMS_MOUNT
from dporun_api.results import Outcome
from dporun_api.run_config import RunConfig
from dporun_trainer.commands.shared import add_run_arguments, run_command
from dporun_trainer.errors import RunError
from dporun_trainer.inputs.prepare import prepare
from dporun_trainer.run_folder import RunFolder

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_run_arguments(parser)
    parser.add_argument("--claims", type=Path, default=Path(CLAIMS_MOUNT), help="where pvc:// is mounted")


def run(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    return run_command(
        arguments,
        lambda folder: folder.prepare_outcome,
        lambda config, folder: _prepare(config, folder, arguments.claims),
    )


def _prepare(config: RunConfig, folder: RunFolder, claims: Path) -> Outcome:
    """Prepare, and show what the data turned out to be, also where it is refused."""
    try:
        outcome = prepare(config, folder, claims=claims)
    except RunError:
        _show_dataset(folder)
        raise
    _show_dataset(folder)
    return outcome


def _show_dataset(folder: RunFolder) -> None:
    """Write dataset.html; without it a run goes on as well."""
    from dporun_trainer.reporting.dataset_page import write_dataset_page  # noqa: PLC0415  draws with matplotlib

    report = folder.dataset_report.read()
    try:
        if report is None:
            folder.dataset_html.unlink(missing_ok=True)
        else:
            write_dataset_page(folder.dataset_html, report)
    except OSError as error:
        log.warning("cannot write %s: %s", folder.dataset_html, error)
