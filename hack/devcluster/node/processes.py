"""Processes that outlive the command that started them, and are stopped by that command's successor.

A process is known by its id *and* its start time, so that an id which the kernel has given to another process since is
never signalled. Signals go through a pidfd, which cannot come to mean another process between the check and the kill.
"""

import contextlib
import json
import os
import select
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Identity:
    """One process, for all time: start times repeat only after a reboot, which changes the boot id."""

    pid: int
    start_time: int  # clock ticks since boot
    boot_id: str

    @classmethod
    def of(cls, pid: int) -> "Identity | None":
        """The identity of the process that has this id now; None when there is none, or it is a zombie."""
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return None
        # The name in parentheses may hold anything, so fields are counted from its end: state is 3rd, start time 22nd.
        fields = stat[stat.rindex(")") + 2 :].split()
        if fields[0] in "ZX":
            return None
        return cls(pid, int(fields[19]), Path("/proc/sys/kernel/random/boot_id").read_text().strip())


def kill(process: Identity, grace_seconds: float) -> None:
    """Ends a process and waits until it is gone: SIGTERM, then SIGKILL after the grace period."""
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    try:
        for number, seconds in ((signal.SIGTERM, grace_seconds), (signal.SIGKILL, None)):
            if Identity.of(process.pid) != process:
                return
            signal.pidfd_send_signal(handle, number)
            if select.select([handle], [], [], seconds)[0]:
                return
    except ProcessLookupError:
        return
    finally:
        os.close(handle)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(process.pid, os.WNOHANG)


def running_programs(program: Path, argument: str) -> Iterator[Identity]:
    """Processes of exactly this executable file which have this argument."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            # Links to a file that has been replaced since end in " (deleted)".
            executable = str((entry / "exe").readlink()).removesuffix(" (deleted)")
            arguments = (entry / "cmdline").read_text().split("\0")
            identity = Identity.of(int(entry.name))
            if executable == str(program) and argument in arguments and identity:
                yield identity


@contextlib.contextmanager
def _signals_later() -> Iterator[None]:
    """Hands the signals that come during the block to their handlers at its end.

    They are not blocked, because a process that is started in the block would inherit that.
    """
    came: list[int] = []
    handlers = {
        number: signal.signal(number, lambda it, _: came.append(it))
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    for it in came:
        signal.raise_signal(it)


@dataclass(frozen=True)
class Processes:
    """The processes of one cluster, each by a name: `run/NAME.pid` says which it is, `log/NAME.log` what it said."""

    run: Path
    logs: Path

    def log(self, name: str) -> Path:
        """The file that holds everything the process wrote."""
        return self.logs / f"{name}.log"

    def get(self, name: str) -> Identity | None:
        """The running process of this name, or None."""
        try:
            recorded = Identity(**json.loads(self._pid_file(name).read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None
        return recorded if Identity.of(recorded.pid) == recorded else None

    def start(self, name: str, argv: Sequence[str], environment: Mapping[str, str]) -> Identity:
        """Starts a process in a session of its own; one that runs already is left alone."""
        if running := self.get(name):
            return running
        self.run.mkdir(parents=True, exist_ok=True)
        self.logs.mkdir(parents=True, exist_ok=True)
        log = self.log(name)
        if log.exists():
            log.replace(log.with_suffix(".previous.log"))
        with log.open("wb") as output, _signals_later():  # what has been started and not noted, nobody would stop
            child = subprocess.Popen(
                argv, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
            try:
                identity = Identity.of(child.pid)
                if identity is None:
                    raise ChildProcessError(f"{name} ended with exit code {child.wait()} as soon as it was started")
                partial = self._pid_file(name).with_suffix(".partial")
                partial.write_text(json.dumps(asdict(identity)))
                partial.replace(self._pid_file(name))
            except BaseException:
                child.kill()
                raise
        return identity

    def stop(self, name: str, grace_seconds: float = 10) -> bool:
        """Stops the process of this name; says whether it ran."""
        process = self.get(name)
        if process:
            kill(process, grace_seconds)
        self._pid_file(name).unlink(missing_ok=True)
        return process is not None

    def _pid_file(self, name: str) -> Path:
        return self.run / f"{name}.pid"
