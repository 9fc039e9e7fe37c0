"""How a pod's training processes ended: each leaves a file, as accelerate turns every exit code into 1. No torch."""

import re
import signal
from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic import ValidationError

from dporun_api.document import Document, Finite
from dporun_api.files import write_text
from dporun_api.results import Failure, Outcome, OutcomeState
from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer.errors import RunError

FOLDER_VARIABLE = "DPORUN_RANKS"
"""Environment variable that names the folder of these files."""

_KILLED = re.compile(r"Signal (\d+) \(\w+\) received by PID (\d+)")


class RankEnd(Document):
    """The end of one training process."""

    rank: int
    state: OutcomeState
    at: Finite
    """Unix time."""
    step: int | None = None
    failure: Failure | None = None


def write(folder: Path, end: RankEnd) -> None:
    """Leave the file of a process that ends."""
    write_text(folder / f"rank-{end.rank}.json", end.to_json(exclude_none=True))


def read(folder: Path) -> list[RankEnd]:
    """Read the files that the processes left; one that was killed left none."""
    ends = []
    for path in sorted(folder.glob("rank-*.json")):
        try:
            ends.append(RankEnd.model_validate_json(path.read_bytes()))
        except (OSError, ValidationError):
            continue
    return ends


def fold(
    ends: Iterable[RankEnd],
    ranks: Sequence[int],
    *,
    stopping: bool,
    log_tail: str,
    exit_code: int,
    memory_ran_out: bool,
) -> Outcome:
    """Conclude from the processes of one pod how its training ended.

    Args:
        ends: of the processes that left a file.
        ranks: the processes of this pod.
        stopping: whether the pod was asked to stop.
        log_tail: last lines of the output of all of them.
        exit_code: of the process that started them.
        memory_ran_out: whether the kernel ended a process of this pod for that while they ran.

    Returns:
        Failed with the first process that failed by itself, which losing contact with another one is not;
        Preempted when they were asked to stop, here or in another pod; Failed when one left no file, or they lost
        contact with another pod's; else Succeeded.

    """
    known = list(ends)
    failures = sorted(
        ((end.at, end.rank, end.failure) for end in known if end.failure is not None), key=lambda failure: failure[:2]
    )
    by_itself = [failure for failure in failures if failure[2].reason is not Reason.RENDEZVOUS]
    preempted = [end for end in known if end.state is OutcomeState.PREEMPTED]
    silent = sorted(set(ranks) - {end.rank for end in known})
    if by_itself:
        return _failed(by_itself[0], log_tail)
    if preempted or stopping:
        step = max((end.step for end in preempted if end.step is not None), default=None)
        saved = f"saved at step {step}" if step else "stopped before there was anything new to save"
        return Outcome(state=OutcomeState.PREEMPTED, message=f"Preempted: {saved}.", step=step)
    if silent:
        return _outcome(_died(silent, log_tail, exit_code, memory_ran_out=memory_ran_out), log_tail)
    if failures:
        return _failed(failures[0], log_tail)
    if exit_code != 0:
        message = f"the training processes finished, but their launcher failed with exit code {exit_code}"
        return _outcome(RunError(Reason.TRAINER_ERROR, message), log_tail)
    return Outcome(state=OutcomeState.SUCCEEDED, message="Training finished.")


def _failed(first: tuple[float, int, Failure], log_tail: str) -> Outcome:
    _, rank, failure = first
    own_tail = failure.log_tail or log_tail[-2048:] or None
    failure = failure.model_copy(update={"rank": rank, "log_tail": own_tail})
    return Outcome(state=OutcomeState.FAILED, message=failure.message, failure=failure)


def _outcome(error: RunError, log_tail: str) -> Outcome:
    failure = error.failure(log_tail=log_tail)
    return Outcome(state=OutcomeState.FAILED, message=failure.message, failure=failure)


def _died(silent: Sequence[int], log_tail: str, exit_code: int, *, memory_ran_out: bool) -> RunError:
    ranks = ", ".join(map(str, silent))
    if memory_ran_out:
        return RunError(
            Reason.HOST_OUT_OF_MEMORY,
            f"the kernel ended training process {ranks} because the pod's memory ran out",
            hint="Raise resources.limits.memory, or lower training.perDeviceBatchSize.",
            rank=silent[0],
        )
    numbers = {int(number) for number, _ in _KILLED.findall(log_tail)}
    if exit_code in {-signal.SIGKILL, 128 + signal.SIGKILL}:
        numbers.add(signal.SIGKILL)
    if numbers:
        names = ", ".join(signal.Signals(number).name for number in sorted(numbers))
        message = f"training process {ranks} was killed by {names}"
        return RunError(Reason.TRAINER_ERROR, message, rank=silent[0])
    message = f"training process {ranks} ended without reporting an error (its launcher's exit code: {exit_code})"
    if re.search(r"RendezvousConnectionError|RendezvousTimeoutError|DistNetworkError|DistStoreError", log_tail):
        return RunError(
            Reason.RENDEZVOUS,
            "the training processes could not find each other",
            hint="Check that all pods of the run have started, and that no NetworkPolicy blocks traffic between them.",
        )
    return RunError(Reason.TRAINER_ERROR, message, rank=silent[0])
