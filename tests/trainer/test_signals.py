"""Stopping: the first signal counts, further ones change nothing, and the handlers from before come back."""

import os
import signal
import threading

import pytest

from dporun_trainer.signals import STOP_SIGNALS, Stopped, on_stop, raise_stopped


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_the_first_signal_counts(number: signal.Signals) -> None:
    before = [signal.getsignal(one) for one in STOP_SIGNALS]
    stop, calls = threading.Event(), []

    def react() -> None:
        calls.append(1)
        stop.set()

    with on_stop(react):
        os.kill(os.getpid(), number)
        assert stop.wait(10)
        os.kill(os.getpid(), signal.SIGTERM)
    assert calls == [1]
    assert [signal.getsignal(one) for one in STOP_SIGNALS] == before


def test_only_the_signals_asked_for_are_handled() -> None:
    before = signal.getsignal(signal.SIGINT)
    with on_stop(lambda: None, [signal.SIGTERM]):
        assert signal.getsignal(signal.SIGINT) == before


def test_a_stopped_process_unwinds_past_what_catches_errors() -> None:
    cleaned = []

    def work() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            threading.Event().wait(10)
        except Exception:  # noqa: BLE001  as a library would
            cleaned.append("wrongly")
        finally:
            cleaned.append("unwound")

    with on_stop(raise_stopped), pytest.raises(Stopped):
        work()
    assert cleaned == ["unwound"]
