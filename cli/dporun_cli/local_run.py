"""``dporun run --local``: prepare, train and archive as the pods of a cluster would, one process after the other."""

import contextlib
import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dporun_api import pod, run_folder
from dporun_api.archive_policy import skip_reason
from dporun_api.files import write_text
from dporun_api.pod import Command, ExitCode
from dporun_api.results import Outcome, OutcomeState, Progress
from dporun_api.run_config import RunConfig
from dporun_cli.interrupts import Interrupts
from dporun_cli.view import View

TICK_SECONDS = 0.25


class OtherRunError(Exception):
    """The folder belongs to another run: one that is still running, or one with other settings."""


_OUTCOMES = {
    Command.PREPARE: run_folder.PREPARE_OUTCOME,
    Command.TRAIN: run_folder.OUTCOME,
    Command.ARCHIVE: run_folder.ARCHIVE_OUTCOME,
}
"""Where each command writes how it ended."""


class LocalRun:
    """A run in a folder of this computer. To run it again continues where it stopped."""

    def __init__(self, config: RunConfig, root: Path, view: View):
        self._config = config
        self._root = root
        self._view = view
        self._lock: int | None = None
        self.directory = root / config.run.directory

    def run(self) -> ExitCode:
        """Run every command that is not yet done.

        Returns:
            The exit code of the command that ended the run, as in a cluster.

        Raises:
            OtherRunError: the folder belongs to another run.
            OSError: the folder cannot be written.

        """
        with self._exclusive_lock(), Interrupts(self._view) as interrupts:
            old = self._stored()
            if old is not None:
                self._refuse_other(old)
            write_text(self.directory / run_folder.LOCAL_CONFIG, self._config.to_json(indent=2) + "\n")
            return self._run(interrupts, archived=old is not None and old.archive == self._config.archive)

    def _run(self, interrupts: Interrupts, *, archived: bool) -> ExitCode:
        """Run the commands that are left.

        Args:
            interrupts: of the user.
            archived: whether an archive that these results have is the one that is asked for now.

        """
        if self._done(Command.TRAIN):
            self._view.note("finished before; its results are kept")
            code = ExitCode.OK
        else:
            archived = False
            code = self._execute(Command.PREPARE, interrupts)
            if code is ExitCode.OK:
                code = self._execute(Command.TRAIN, interrupts)
        if code is ExitCode.PREEMPTED or (archived and self._done(Command.ARCHIVE)):
            return code
        # Archiving also writes the report of a run that failed, whether or not anything is to be archived.
        if code is ExitCode.OK and not self._to_be_archived():
            return code
        archive_code = self._execute(Command.ARCHIVE, interrupts)
        return archive_code if code is ExitCode.OK else code

    def outcome(self, command: Command) -> Outcome | None:
        """Newest outcome of ``command``; None when there is none."""
        try:
            return Outcome.model_validate_json((self.directory / _OUTCOMES[command]).read_text(encoding="utf-8"))
        except (OSError, ValidationError):
            return None

    def log(self, command: Command) -> Path:
        """File with what ``command`` printed."""
        return self.directory / run_folder.LOCAL_LOGS / f"{command}.log"

    def _stored(self) -> RunConfig | None:
        try:
            return RunConfig.model_validate_json((self.directory / run_folder.LOCAL_CONFIG).read_text(encoding="utf-8"))
        except (OSError, ValidationError):
            return None

    def _refuse_other(self, old: RunConfig) -> None:
        results = [run_folder.FINAL, *self.directory.glob(f"{run_folder.CHECKPOINT_PREFIX}*")]
        if not any((self.directory / path).exists() for path in results):
            return
        changed = _changes(_settings(old), _settings(self._config))
        if changed:
            raise OtherRunError(
                f"{self.directory} contains a run with other settings ({', '.join(changed)}): "
                "give this run another name, or delete the folder"
            )

    def _done(self, command: Command) -> bool:
        outcome = self.outcome(command)
        return outcome is not None and outcome.state is OutcomeState.SUCCEEDED

    def _to_be_archived(self) -> bool:
        trained = self.outcome(Command.TRAIN)
        skipped = skip_reason(
            self._config.archive,
            started=trained is not None,
            succeeded=self._done(Command.TRAIN),
            passed=bool(trained and trained.verdict and trained.verdict.passed),
        )
        return skipped is None

    def _execute(self, command: Command, interrupts: Interrupts) -> ExitCode:
        if interrupts.count:
            return ExitCode.PREEMPTED
        self._view.start(command)
        self.log(command).parent.mkdir(parents=True, exist_ok=True)
        (self.directory / _OUTCOMES[command]).unlink(missing_ok=True)
        began = time.time()
        config = self.directory / run_folder.LOCAL_CONFIG
        port = 0 if command is Command.TRAIN else None  # no status server: progress is read from the file
        arguments = pod.arguments(command, config=config, root=self._root, port=port)
        with self.log(command).open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", pod.MODULE, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches this program alone, which passes it on as a preemption
                pass_fds=() if self._lock is None else (self._lock,),
                env=_environment(),
            )
        with interrupts.passed_to(process):
            while process.poll() is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(TICK_SECONDS)
                self._view.progress(self._progress(since=began))
        code = _exit_code(process.returncode, stopped=interrupts.count > 0)
        self._view.finish(command, code, self.outcome(command))
        return code

    @contextlib.contextmanager
    def _exclusive_lock(self) -> Iterator[None]:
        """Hold the lock of the run's directory.

        The commands inherit it: one that outlives this program, because that was killed, keeps the directory to itself.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        with (self.directory / run_folder.LOCAL_LOCK).open("w", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise OtherRunError(f"another run is using {self.directory}; wait until it ends, or stop it") from error
            self._lock = file.fileno()
            yield

    def _progress(self, *, since: float) -> Progress | None:
        try:
            progress = Progress.model_validate_json((self.directory / run_folder.PROGRESS).read_bytes())
        except (OSError, ValidationError):
            return None
        return progress if progress.updated_at >= since else None


def _exit_code(returncode: int, *, stopped: bool) -> ExitCode:
    if returncode in set(ExitCode):
        return ExitCode(returncode)
    return ExitCode.PREEMPTED if stopped else ExitCode.ERROR


def _environment() -> dict[str, str]:
    return {"PYTHONUNBUFFERED": "1", **os.environ, pod.TERMINATION_LOG_VARIABLE: os.devnull}


def _settings(config: RunConfig) -> dict[str, Any]:
    """The settings that must not change once there are results."""
    return config.model_dump(
        by_alias=True, exclude={"manifest", "archive", "grace_period_seconds", "stall_seconds", "image"}
    )


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
