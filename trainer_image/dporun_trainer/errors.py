"""The one exception that ends a command, with all that a person needs to act on it."""

from typing import Any

from dporun_api.pod import ExitCode
from dporun_api.results import Failure
from dporun_api.text import shorten
from dporun_api.v1alpha1.reasons import Reason


class RunError(Exception):
    """A run cannot go on.

    Attributes:
        reason: one word for programs; decides the exit code.
        message: what happened and where, for people.
        hint: what to do about it.
        rank: training process that failed, if one did.

    """

    def __init__(self, reason: Reason, message: str, *, hint: str | None = None, rank: int | None = None):
        super().__init__(message)
        self.reason = reason
        self.message = _utf8(message)
        self.hint = None if hint is None else _utf8(hint)
        self.rank = rank

    def __reduce__(self) -> tuple[Any, ...]:
        """Have it cross from one process to another: an exception is built anew from its arguments."""
        return _run_error, (self.reason, self.message, self.hint, self.rank)

    @property
    def exit_code(self) -> ExitCode:
        """Exit code of the command that this error ends."""
        return self.reason.traits.exit_code

    def failure(self, *, log_tail: str | None = None) -> Failure:
        """Express this error as part of an Outcome, cut to the lengths that Failure allows."""
        return Failure(
            reason=self.reason,
            message=shorten(self.message, 1024),
            hint=None if self.hint is None else shorten(self.hint, 512),
            rank=self.rank,
            exit_code=self.exit_code,
            log_tail=None if log_tail is None else log_tail[-2048:],
        )


def _utf8(text: str) -> str:
    """Have a text be one that can be written: the name of a file need not be UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode()


def _run_error(reason: Reason, message: str, hint: str | None, rank: int | None) -> RunError:
    return RunError(reason, message, hint=hint, rank=rank)
