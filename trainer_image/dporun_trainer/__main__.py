"""``dporun-trainer``: the commands of the trainer image."""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from dporun_api import logs
from dporun_api.pod import ExitCode
from dporun_trainer import threads
from dporun_trainer.commands.shared import quiet_libraries
from dporun_trainer.signals import Stopped, on_stop, raise_stopped

_COMMANDS = {
    "prepare": "fetch and check model and data, before a GPU is held",
    "train": "train, evaluate, judge and report (PID 1 of the training pod)",
    "archive": "prune, upload, verify",
    "restore": "bring an archived run back, and check every file against its manifest",
    "evaluate": "compare an adapter or merged model with its base on preference pairs and general questions",
    "merge": "merge an adapter into its base model, and verify the result",
    "diagnose": "print how healthy a training run is, of DPORun or of TRL, and what to change",
    "gpus": "say which GPUs this pod sees, and whether a run can train on them",
    "data": "look at preference data as prepare would, without a run",
    "report": "write report.html, report.png and the model card (README.md) of a run",
}
"""Name of each module of ``commands``, and its help."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    A signal to stop is heeded from the first moment on: PID 1 of a container would not even notice one without a
    handler, and its pod would be waited for until its grace period is over.
    """
    words = sys.argv[1:] if argv is None else list(argv)
    try:
        with on_stop(raise_stopped):
            if words[:1] != ["train"]:  # which divides the CPUs among its processes itself
                os.environ |= threads.variables(os.environ)
            arguments = _parser(words[:1]).parse_args(words)
            logs.configure()
            quiet_libraries()
            return int(arguments.run(arguments))
    except Stopped:
        return ExitCode.PREEMPTED


def _parser(chosen: Sequence[str]) -> argparse.ArgumentParser:
    """Build the parser. Only the chosen command's module is imported: some import torch, which takes seconds."""
    parser = argparse.ArgumentParser(prog="dporun-trainer", description=__doc__)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for name, text in _COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text)
        if name in chosen:
            module = importlib.import_module(f"dporun_trainer.commands.{name}")
            module.add_arguments(command)
            command.set_defaults(run=module.run)
    return parser


if __name__ == "__main__":
    sys.exit(main())
