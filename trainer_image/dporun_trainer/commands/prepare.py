"""``prepare``: fetch and check model and data."""

import argparse
from pathlib import Path

from dporun_api.pod import CLAIMS_MOUNT
from dporun_trainer.commands.shared import add_run_arguments, run_command
from dporun_trainer.inputs.prepare import prepare


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_run_arguments(parser)
    parser.add_argument("--claims", type=Path, default=Path(CLAIMS_MOUNT), help="where pvc:// is mounted")


def run(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    return run_command(
        arguments,
        lambda folder: folder.prepare_outcome,
        lambda config, folder: prepare(config, folder, claims=arguments.claims),
    )
