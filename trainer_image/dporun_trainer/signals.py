"""What a process does when it is asked to stop."""

import ctypes
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_PR_SET_PDEATHSIG = 1


class Stopped(BaseException):
    """The process was asked to stop; not an Exception, so that nothing on the way takes it for an error."""


@contextmanager
def on_stop(react: Callable[[], None], signals: Sequence[signal.Signals] = STOP_SIGNALS) -> Iterator[None]:
    """Call ``react`` once, in the main thread, at the first of ``signals`` while the block runs."""
    asked = threading.Event()

    def handle(*_: object) -> None:
        if not asked.is_set():
            asked.set()
            react()

    before = {number: signal.signal(number, handle) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def raise_stopped() -> None:
    """Unwind the main thread from wherever it is.

    Raises:
        Stopped: always.

    """
    raise Stopped


def die_with_parent() -> None:
    """Have the kernel kill this process when the one that started it dies; Linux only.

    torchelastic gives each of its processes a session of its own, so killing the launcher's process group, as is done
    when a process failed and the others hang, would leave those behind, holding their GPUs.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
