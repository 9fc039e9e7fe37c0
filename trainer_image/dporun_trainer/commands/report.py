"""``report``: write report.html, report.png and the model card of a run."""

import argparse
from pathlib import Path

from dporun_api.pod import ExitCode
from dporun_trainer.commands.shared import explained
from dporun_trainer.diagnosis.remedies import train_longer
from dporun_trainer.reporting.report import write_report
from dporun_trainer.reporting.run_data import read_run_data
from dporun_trainer.run_folder import RunFolder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("directory", type=Path, metavar="DIR", help="directory of the run")


def run(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit code."""

    def body() -> int:
        folder = RunFolder(arguments.directory)
        report(folder)
        print(folder.report_html)
        return ExitCode.OK

    return explained(body)


def report(folder: RunFolder) -> None:
    """Write the report from the files that are there; the same files give the same report.

    Raises:
        FileNotFoundError: the directory is not there.
        OSError: the report cannot be written.

    """
    record = read_run_data(folder)
    longer = None
    if record.config is not None and record.metrics is not None:
        longer = train_longer(record.config, record.metrics.reward_margin, record.curves, record.best)
    write_report(folder, record, longer)
