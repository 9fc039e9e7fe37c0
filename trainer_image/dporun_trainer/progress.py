"""Progress of a pod: its file, and the arithmetic of percent and time left. No heavy imports."""

import contextlib
import logging
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dporun_api.files import write_text
from dporun_api.results import Progress

log = logging.getLogger(__name__)

TRAINING_PERCENT = 90.0
"""Percent of the stay in the pod at which training ends; evaluation, merge and report are the rest."""

HEARTBEAT_SECONDS = 5.0
"""How often a phase without steps of its own renews the snapshot."""

_RECENT = 50
_FINISH_START = 20.0
_FINISH_BATCH = 16
"""Answers that a process of the evaluation generates at a time, at least."""
_FORWARD_SHARE = 0.4
"""A validation pair costs about this share of a training pair: the forward of forward and backward."""


class ProgressFile:
    """progress.json: one writer at a time, any number of readers."""

    def __init__(self, path: Path):
        self._path = path
        self._lock = threading.Lock()

    def read(self) -> Progress:
        """Read the newest snapshot; an empty one when there is none that can be read."""
        try:
            return Progress.model_validate_json(self._path.read_bytes())
        except (OSError, ValidationError):
            return Progress()

    def update(self, **changes: Any) -> None:
        """Replace some fields, keep the others, and renew the time stamp.

        A snapshot that cannot be written is logged and forgotten: progress is no reason to stop a run.

        Raises:
            ValidationError: a field that Progress does not have, or a value outside its range.

        """
        with self._lock:
            fields = dict(self.read()) | {"updated_at": time.time()} | changes
            snapshot = Progress.model_validate(fields)
            try:
                write_text(self._path, snapshot.to_json(exclude_none=True))
            except OSError as error:
                log.warning("cannot write %s: %s", self._path, error)


@contextlib.contextmanager
def heartbeat(progress: ProgressFile, seconds: float = HEARTBEAT_SECONDS) -> Iterator[None]:
    """Renew the snapshot every ``seconds`` while the block runs.

    For phases without steps, such as loading a model. Training renews it with its steps instead, so that one that
    hangs in a collective operation looks as dead as it is.
    """
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(seconds):
            progress.update()

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    progress.update()
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


class Silence:
    """How long there has been no heartbeat, by a clock that nobody sets."""

    def __init__(self, progress: ProgressFile):
        self._progress = progress
        self._newest = progress.read().updated_at
        self._heard = self._looked = time.monotonic()

    def seconds(self) -> float:
        """Seconds since the newest heartbeat, or since this began."""
        now = time.monotonic()
        if now - self._looked >= HEARTBEAT_SECONDS:
            self._looked = now
            newest = self._progress.read().updated_at
            if newest != self._newest:
                self._newest, self._heard = newest, now
        return now - self._heard


@dataclass(frozen=True)
class TotalWork:
    """The steps and validations of a whole run.

    Attributes:
        steps: optimizer steps.
        evaluations: validations.
        evaluation_size: pairs of one validation divided by pairs of one optimizer step.

    """

    steps: int
    evaluations: int
    evaluation_size: float


@dataclass(frozen=True)
class WorkDone:
    """The steps and validations made so far, and how long this attempt's took.

    Attributes:
        steps: optimizer steps, those of earlier attempts included.
        evaluations: validations, those of earlier attempts included.
        step_seconds: durations of this attempt's steps, oldest first.
        evaluation_seconds: durations of this attempt's validations, oldest first.

    """

    steps: int
    evaluations: int
    step_seconds: Sequence[float] = ()
    evaluation_seconds: Sequence[float] = ()


def pace(work: TotalWork, done: WorkDone) -> tuple[float, float] | None:
    """Seconds of one step and of one validation, as far as this attempt knows; None before its first step.

    The first step of several is left out (it compiles and allocates); a validation that was not yet seen is taken to
    cost what its pairs cost in training without the backward pass.
    """
    if not done.step_seconds:
        return None
    typical = done.step_seconds[1:][-_RECENT:] or done.step_seconds
    step = sum(typical) / len(typical)
    measured = done.evaluation_seconds[-3:]
    evaluation = sum(measured) / len(measured) if measured else step * work.evaluation_size * _FORWARD_SHARE
    return step, evaluation


def seconds_left(work: TotalWork, done: WorkDone, *, afterwards: float = 0.0) -> float | None:
    """Seconds until the pod is done: remaining steps and validations at their pace, and what comes ``afterwards``.

    None before the first step of this attempt.
    """
    known = pace(work, done)
    if known is None:
        return None
    step, evaluation = known
    steps = max(work.steps - done.steps, 0)
    evaluations = max(work.evaluations - done.evaluations, 0)
    return steps * step + evaluations * evaluation + afterwards


def finishing_seconds(
    *, answers: int, tokens: int, seconds_per_token: float, evaluation: float, processes: int
) -> float:
    """Estimate what comes after training: start, rewards of all validation pairs, generated answers.

    Args:
        answers: prompts that base and tuned model answer.
        tokens: longest answer.
        seconds_per_token: of one generated answer; answers are generated several at a time.
        evaluation: seconds of one validation, which has to be done with and without the adapter.
        processes: of the evaluation: one for each GPU of the pod.

    """
    batches = -(-answers // (_FINISH_BATCH * processes))
    return _FINISH_START + 2 * evaluation + 2 * batches * tokens * seconds_per_token


def percent(work: TotalWork, done: WorkDone) -> float:
    """Share of the stay in the pod that is done, from 0 to TRAINING_PERCENT while training.

    Steps and validations weigh what they cost; before that is known, only steps count.
    """
    step, evaluation = pace(work, done) or (1.0, 0.0)
    total = work.steps * step + work.evaluations * evaluation
    spent = min(done.steps, work.steps) * step + min(done.evaluations, work.evaluations) * evaluation
    return TRAINING_PERCENT * spent / total if total > 0 else 0.0
