"""Commands, and what the person at the terminal sees of them: a line per step, and the log of what failed."""

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

_START = time.monotonic()


class DevClusterError(Exception):
    """Something the person has to know about; the message says what to do."""


def say(message: str) -> None:
    """Prints a line of progress; whether anybody reads it makes no difference to the cluster."""
    with contextlib.suppress(BrokenPipeError):
        print(f"{time.monotonic() - _START:6.1f} s  {message}", file=sys.stderr, flush=True)


def tail(log: Path, lines: int = 25) -> str:
    """The end of a log file, indented, under its path."""
    text = log.read_text(errors="replace").splitlines()[-lines:] if log.exists() else []
    return "\n".join([f"the end of {log}:", *(f"  | {line}" for line in text or ["(empty)"])])


def run(
    argv: Sequence[object], log: Path, environment: Mapping[str, str] | None = None, directory: Path | None = None
) -> None:
    """Runs a command to its end with its output in a log file.

    Raises:
        DevClusterError: the command is missing or failed; says how, with the end of the log.

    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        try:
            status = subprocess.run(
                [*map(str, argv)],
                env=environment,
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                check=False,
            ).returncode
        except FileNotFoundError as error:
            raise DevClusterError(f"{argv[0]} is not installed") from error
    if status:
        raise DevClusterError(f"`{' '.join(map(str, argv))}` failed with exit code {status}; {tail(log)}")


def ask(*argv: object) -> str | None:
    """What a command prints; None when it fails."""
    done = subprocess.run([*map(str, argv)], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    return None if done.returncode else done.stdout


def wait_until(condition: Callable[[], bool], what: str, seconds: float, explain: Callable[[], str]) -> None:
    """Waits for a condition.

    Raises:
        DevClusterError: it did not come true in time, or `explain` found the reason earlier by raising it.

    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise DevClusterError(f"{what} did not happen within {seconds:.0f} s; {explain()}")
        time.sleep(0.1)
