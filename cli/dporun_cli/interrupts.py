"""Ctrl-C and SIGTERM while a command of a local run goes on."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from types import FrameType
from typing import Any, Self

from dporun_cli.view import View


class Interrupts:
    """Treats the first SIGINT or SIGTERM as a preemption (SIGTERM to the command), the second as the end (SIGKILL).

    Attributes:
        count: signals so far.

    """

    def __init__(self, view: View):
        self.count = 0
        self._view = view
        self._process: subprocess.Popen[bytes] | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextlib.contextmanager
    def passed_to(self, process: subprocess.Popen[bytes]) -> Iterator[None]:
        """Pass signals on to ``process``, including one that came while it started."""
        self._process = process
        if self.count:
            process.terminate()
        try:
            yield
        finally:
            self._process = None

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        self.count += 1
        self._view.stopping()
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            if self.count == 1:
                self._process.terminate()
            else:
                os.killpg(self._process.pid, signal.SIGKILL)
