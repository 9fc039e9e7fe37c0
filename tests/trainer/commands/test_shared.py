"""How the commands of a pod end when they are asked to stop."""

import argparse
import os
import signal
import subprocess
import sys
import threading
import warnings
from pathlib import Path

from dporun_api.pod import ExitCode
from dporun_api.results import Outcome, OutcomeState
from dporun_api.run_config import RunConfig
from dporun_trainer.commands.shared import quiet_libraries, run_command
from dporun_trainer.run_folder import RunFolder
from dporun_trainer.signals import on_stop, raise_stopped

CONFIG = '{"run": {"name": "tone"}, "model": {"uri": "/model"}, "dataset": {"train": "/train.jsonl"}}'


def test_a_command_that_is_stopped_says_so(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(CONFIG)

    def work(_config: RunConfig, _folder: RunFolder) -> Outcome:
        os.kill(os.getpid(), signal.SIGTERM)
        threading.Event().wait(60)
        raise AssertionError("the signal did not arrive")

    arguments = argparse.Namespace(config=tmp_path / "run.json", root=tmp_path)
    with on_stop(raise_stopped):
        assert run_command(arguments, lambda folder: folder.prepare_outcome, work) is ExitCode.PREEMPTED
    outcome = RunFolder(tmp_path / "tone").prepare_outcome.read()
    assert outcome is not None
    assert outcome.state is OutcomeState.PREEMPTED


def test_what_only_libraries_can_mend_is_not_logged() -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        quiet_libraries()
        warnings.warn("`is_gradient_checkpointing` is deprecated", FutureWarning, stacklevel=1)
        warnings.warn("The following rank_pattern keys did not match any targeted module", RuntimeWarning, stacklevel=1)
        warnings.warn("The following numbers did not match", RuntimeWarning, stacklevel=1)
    assert [str(warning.message) for warning in seen] == ["The following numbers did not match"]


def test_a_program_heeds_the_signal_whatever_it_is_doing(tmp_path: Path) -> None:
    """It waits for its configuration here, from a pipe into which nobody writes."""
    config = tmp_path / "run.json"
    os.mkfifo(config)
    command = [sys.executable, "-m", "dporun_trainer", "prepare", "--config", str(config), "--root", str(tmp_path)]
    with subprocess.Popen(command) as process, config.open("w"):  # opens once the program reads
        process.terminate()
        assert process.wait(60) == ExitCode.PREEMPTED
