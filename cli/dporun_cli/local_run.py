"""``dporun run --local``: prepare, train and archive as the pods of a cluster would, one process after the other."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from pydantic import ValidationError

from dporun_cli.view import View
from dporun_trainer.contract import layout
from dporun_trainer.contract.config import ArchiveWhen, RunConfig
from dporun_trainer.contract.results import ExitCode, Outcome, OutcomeState, Progress
from dporun_trainer.files import write_text

CONFIG = "run.json"
LOGS = "logs"
TICK_SECONDS = 0.25


class OtherRunError(Exception):
    """The folder holds results of a run with other settings."""


@dataclass(frozen=True)
class Step:
    """One command of the trainer."""

    command: str
    outcome_file: str
    arguments: tuple[str, ...] = ()


PREPARE = Step("prepare", "prepare_outcome.json")
TRAIN = Step("train", str(layout.OUTCOME), ("--port", "0"))
ARCHIVE = Step("archive", "archive_outcome.json")


class LocalRun:
    """A run in a folder of this computer; to run it again goes on where it stopped."""

    def __init__(self, config: RunConfig, root: Path, view: View):
        self._config = config
        self._root = root
        self._view = view
        self.directory = root / config.run.directory

    def run(self) -> ExitCode:
        """Do what is not yet done.

        Returns:
            The exit code of the command that ended the run, as in a cluster.

        Raises:
            OtherRunError: the folder holds results of a run with other settings.
            OSError: the folder cannot be written.

        """
        old = self._stored()
        if old is not None:
            self._refuse_other(old)
        write_text(self.directory / CONFIG, self._config.to_json(indent=2) + "\n")
        if not self._done(TRAIN):
            for step in (PREPARE, TRAIN):
                code = self._execute(step)
                if code is not ExitCode.OK:
                    break
            if code is ExitCode.PREEMPTED or not (self.directory / layout.OUTCOME).exists():
                return code
        else:
            code = ExitCode.OK
            self._view.note("finished before; the results are as they were")
        archived = old is not None and old.archive == self._config.archive and self._done(ARCHIVE)
        if archived or not self._to_be_archived():
            return code
        archive_code = self._execute(ARCHIVE)
        return code or archive_code

    def outcome(self, step: Step) -> Outcome | None:
        """What ``step`` said last; None when it has said nothing."""
        try:
            return Outcome.model_validate_json((self.directory / step.outcome_file).read_text(encoding="utf-8"))
        except (OSError, ValidationError):
            return None

    def log(self, step: Step) -> Path:
        """File with what ``step`` printed."""
        return self.directory / LOGS / f"{step.command}.log"

    def _stored(self) -> RunConfig | None:
        try:
            return RunConfig.model_validate_json((self.directory / CONFIG).read_text(encoding="utf-8"))
        except (OSError, ValidationError):
            return None

    def _refuse_other(self, old: RunConfig) -> None:
        results = [layout.FINAL, *self.directory.glob(f"{layout.CHECKPOINT_PREFIX}*")]
        if not any((self.directory / path).exists() for path in results):
            return
        changed = _changes(_settings(old), _settings(self._config))
        if changed:
            raise OtherRunError(
                f"{self.directory} holds a run with other settings ({', '.join(changed)}): "
                "give this one another name, or delete that folder"
            )

    def _done(self, step: Step) -> bool:
        outcome = self.outcome(step)
        return outcome is not None and outcome.state is OutcomeState.SUCCEEDED

    def _to_be_archived(self) -> bool:
        archive, trained = self._config.archive, self.outcome(TRAIN)
        if archive is None or trained is None:
            return False
        passed = trained.verdict is not None and trained.verdict.passed
        return {
            ArchiveWhen.FINISHED: True,
            ArchiveWhen.SUCCEEDED: trained.state is OutcomeState.SUCCEEDED,
            ArchiveWhen.PASSED: passed,
        }[archive.when]

    def _execute(self, step: Step) -> ExitCode:
        self._view.start(step.command)
        self.log(step).parent.mkdir(parents=True, exist_ok=True)
        (self.directory / step.outcome_file).unlink(missing_ok=True)
        began = time.time()
        command = [sys.executable, "-m", "dporun_trainer", step.command, "--config", str(self.directory / CONFIG)]
        with self.log(step).open("ab") as log:
            process = subprocess.Popen(
                [*command, "--root", str(self._root), *step.arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches this program alone, which passes it on as a preemption
                env=_environment(),
            )
        with _preempting(process, self._view) as stop:
            while process.poll() is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(TICK_SECONDS)
                self._view.progress(self._progress(since=began))
        outcome = self.outcome(step)
        code = _exit_code(process.returncode, stopped=stop.asked > 0)
        self._view.finish(step.command, code, outcome)
        return code

    def _progress(self, *, since: float) -> Progress | None:
        try:
            progress = Progress.model_validate_json((self.directory / layout.PROGRESS).read_bytes())
        except (OSError, ValidationError):
            return None
        return progress if progress.updated_at >= since else None


@dataclass
class _Stop:
    asked: int = 0


@contextlib.contextmanager
def _preempting(process: subprocess.Popen[bytes], view: View) -> Iterator[_Stop]:
    """Pass SIGINT and SIGTERM on as what a preempted pod gets: SIGTERM first, SIGKILL when asked again."""
    stop = _Stop()

    def handle(_number: int, _frame: FrameType | None) -> None:
        stop.asked += 1
        with contextlib.suppress(ProcessLookupError):
            if stop.asked == 1:
                process.terminate()
            else:
                os.killpg(process.pid, signal.SIGKILL)
        view.stopping()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _exit_code(returncode: int, *, stopped: bool) -> ExitCode:
    if returncode in set(ExitCode):
        return ExitCode(returncode)
    return ExitCode.PREEMPTED if stopped else ExitCode.ERROR


def _environment() -> dict[str, str]:
    quiet = {"TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1"}
    return {**quiet, **os.environ, "DPORUN_TERMINATION_LOG": os.devnull}


def _settings(config: RunConfig) -> dict[str, Any]:
    """What may not change once there are results."""
    return config.model_dump(by_alias=True, exclude={"manifest", "archive", "grace_period_seconds", "image"})


def _changes(old: Mapping[str, Any], new: Mapping[str, Any], path: str = "") -> list[str]:
    """Fields, such as ``training.learningRate``, in which two documents differ."""
    changed = []
    for key in {**old, **new}:
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            changed += _changes(before, after, f"{path}{key}.")
        elif before != after:
            changed.append(f"{path}{key}: {before} → {after}")
    return changed
