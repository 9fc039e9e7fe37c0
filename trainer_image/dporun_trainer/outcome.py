"""How every command ends: one Outcome, written to the volume and to the termination message, and one exit code."""

import logging
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from dporun_api.pod import TERMINATION_LOG, TERMINATION_LOG_BYTES, TERMINATION_LOG_VARIABLE, ExitCode
from dporun_api.results import Failure, Outcome, OutcomeState
from dporun_api.text import shorten
from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer import disk, gpu_errors
from dporun_trainer.errors import RunError

log = logging.getLogger(__name__)


def conclude(command: Callable[[], Outcome], write: Callable[[Outcome], None], volume: Path) -> ExitCode:
    """Run ``command`` and report how it ended, whatever happens.

    Args:
        command: does the work and returns its Outcome, or raises.
        write: keeps the Outcome on the volume.
        volume: folder that the command writes to.

    Returns:
        The exit code of the process.

    """
    try:
        outcome = command()
    except Exception as error:  # noqa: BLE001  the outcome is where every error goes
        outcome = failed(error, volume)
    publish(outcome, write)
    return exit_code(outcome)


def failed(error: Exception, volume: Path | None = None) -> Outcome:
    """Build the Outcome of a command that ``error`` ended while it wrote to ``volume``."""
    failure = explain(error, volume)
    log.error("%s: %s", failure.reason, failure.message)
    return Outcome(state=OutcomeState.FAILED, message=failure.message, failure=failure)


def exit_code(outcome: Outcome) -> ExitCode:
    """Exit code that goes with ``outcome``."""
    if outcome.state is OutcomeState.PREEMPTED:
        return ExitCode.PREEMPTED
    if outcome.state is OutcomeState.FAILED:
        code = outcome.failure.exit_code if outcome.failure else None
        return ExitCode(code) if code in set(ExitCode) and code else ExitCode.ERROR
    return ExitCode.OK


def explain(error: Exception, volume: Path | None = None) -> Failure:
    """Turn any error into a Failure; the traceback of one that nobody foresaw goes to standard error.

    Args:
        error: that ended the work.
        volume: folder that was written to, where there is one.

    """
    if isinstance(error, RunError):
        return error.failure()
    if (found := gpu_errors.in_error(error)) is not None:
        hint = found.hint or "Take a GPU with more memory; what has been saved so far is complete and kept."
        return RunError(found.reason, found.message, hint=hint).failure()
    trace = "".join(traceback.format_exception(error))
    sys.stderr.write(trace)
    if disk.says_full(error) or (volume is not None and disk.takes_nothing(volume)):
        return _disk_full(error, volume).failure(log_tail=trace)
    return RunError(Reason.TRAINER_ERROR, f"{type(error).__name__}: {error}").failure(log_tail=trace)


def _disk_full(error: Exception, volume: Path | None) -> RunError:
    name = getattr(error, "filename", None)
    if volume is not None and disk.is_elsewhere(name, volume):
        message = f"no space left while writing {name}, which is not on the run's volume"
        hint = "Raise the ephemeral-storage of spec.resources, or free space on the node."
    else:
        message = f"no space left on the volume while writing {name or 'a file'} ({type(error).__name__}: {error})"
        hint = "Set a larger spec.storage.size; the checkpoints saved so far are complete and kept."
    return RunError(Reason.DISK_FULL, message, hint=hint)


def publish(outcome: Outcome, write: Callable[[Outcome], None]) -> None:
    """Keep ``outcome`` with ``write`` and, where there is one, in the container's termination message.

    The message goes first: it is on another file system, so a full volume cannot silence it.
    """
    message_path = Path(os.environ.get(TERMINATION_LOG_VARIABLE, str(TERMINATION_LOG)))
    if message_path.exists():
        message_path.write_text(termination_message(outcome), encoding="utf-8")
    try:
        write(outcome)
    except OSError as error:
        log.warning("cannot write the outcome: %s", error)


def termination_message(outcome: Outcome) -> str:
    """``outcome`` as JSON of at most 4096 bytes, what matters least left out first."""
    shorter: list[Callable[[Outcome], Outcome]] = [
        lambda o: o,
        lambda o: _trim_lists(o, 5, 200),
        lambda o: _trim_lists(o, 2, 120),
        lambda o: o.model_copy(update={"failure": o.failure and o.failure.model_copy(update={"log_tail": None})}),
        lambda o: o.model_copy(update={"health": None, "dataset": None, "metrics": None}),
        lambda o: _bare(o, 256),
        lambda o: _bare(o, 64),
    ]
    text = ""
    for step in shorter:
        outcome = step(outcome)
        text = outcome.to_json(exclude_none=True)
        if len(text.encode()) <= TERMINATION_LOG_BYTES:
            return text
    raise AssertionError(f"the shortest outcome has {len(text)} characters")


def _bare(outcome: Outcome, length: int) -> Outcome:
    """Keep what the operator decides by, with texts cut to ``length`` characters (of up to 6 bytes each in JSON)."""
    failure = outcome.failure and Failure(
        reason=outcome.failure.reason,
        message=shorten(outcome.failure.message, length),
        exit_code=outcome.failure.exit_code,
    )
    return Outcome(
        state=outcome.state, message=shorten(outcome.message, length), archive=outcome.archive, failure=failure
    )


def _trim_lists(outcome: Outcome, entries: int, length: int) -> Outcome:
    """Keep the first ``entries`` of every list of words, each cut to ``length`` characters."""
    update: dict[str, object] = {}
    for section, field in (("dataset", "warnings"), ("health", "evidence"), ("verdict", "reasons")):
        document = getattr(outcome, section)
        if document is not None:
            words = tuple(shorten(word, length) for word in getattr(document, field)[:entries])
            update[section] = document.model_copy(update={field: words})
    health = update.get("health")
    if outcome.health is not None and health is not None:
        suggestions = outcome.health.suggestions[:entries]
        update["health"] = health.model_copy(update={"suggestions": suggestions})  # type: ignore[attr-defined]
    if outcome.failure is not None and outcome.failure.log_tail is not None:
        tail = outcome.failure.log_tail[-5 * length :]
        update["failure"] = outcome.failure.model_copy(update={"log_tail": tail})
    return outcome.model_copy(update=update)
