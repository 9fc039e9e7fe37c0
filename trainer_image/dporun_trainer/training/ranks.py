"""How a pod's training processes ended: each leaves a file, as accelerate turns every exit code into 1. No torch."""

import re
import signal
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from dporun_api.document import Document, Finite
from dporun_api.files import write_text
from dporun_api.results import Failure, Outcome, OutcomeState
from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer import gpu_errors
from dporun_trainer.errors import RunError

FOLDER_VARIABLE = "DPORUN_RANKS"
"""Environment variable that names the folder of these files."""

_FIRST_FAILURE = re.compile(r"Root Cause \(first observed failure\):.*?exitcode\s*: (-?\d+)", re.DOTALL)
_KILLED = re.compile(r"Signal (\d+) \(\w+\) received by PID \d+")
_LOST_CONTACT = re.compile(
    r"Connection closed by peer|Connection reset by peer|Connection refused|Broken pipe|Timed out waiting|"
    r"Socket Timeout|recvValue failed|gloo/transport|NCCL error|ncclRemoteError|NCCL communicator was aborted|"
    r"Watchdog caught collective operation timeout|"
    r"RendezvousConnectionError|RendezvousTimeoutError|DistNetworkError|DistStoreError|DistBackendError"
)


class RankEnd(Document):
    """The end of one training process."""

    rank: int
    state: OutcomeState
    at: Finite
    """Unix time."""
    step: int | None = None
    """Optimizer steps made; absent before training."""
    failure: Failure | None = None


@dataclass(frozen=True)
class Evidence:
    """What is known of the training processes of one pod besides what they say of themselves.

    Attributes:
        ranks: of the processes.
        log_tail: last lines of the output of all of them.
        exit_code: of the process that started them.
        telling: the first lines of their output that say why a GPU failed; long before the last ones, where many talk.
        asked_at: Unix time at which they were asked to stop, if they were.
        stalled: seconds without a heartbeat after which they were killed, if they were.
        memory_ran_out: whether the kernel ended one of them for that.
        disk_is_full: whether the volume takes no more data.

    """

    ranks: Sequence[int]
    log_tail: str
    exit_code: int
    telling: str = ""
    asked_at: float | None = None
    stalled: float | None = None
    memory_ran_out: bool = False
    disk_is_full: bool = False

    @property
    def killed_by(self) -> set[int]:
        """Signals that ended processes: the one that ended the first of them, where that is known."""
        first = _FIRST_FAILURE.search(self.log_tail)
        if first is not None:
            return {-int(first[1])} if int(first[1]) < 0 else set()
        killed = {int(number) for number in _KILLED.findall(self.log_tail)}
        return killed | ({signal.SIGKILL} if self.exit_code in {-signal.SIGKILL, 128 + signal.SIGKILL} else set())


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


def tells_of_lost_contact(text: str) -> bool:
    """Whether an error or log says that another process could not be reached any more."""
    return _LOST_CONTACT.search(text) is not None


def fold(ends: Iterable[RankEnd], evidence: Evidence) -> Outcome:
    """Conclude from the processes of one pod how its training ended.

    Args:
        ends: of the processes that left a file.
        evidence: on all of them.

    Returns:
        Failed for the most telling cause; Preempted when they were asked to stop, here or in another pod; else
        Succeeded.

    """
    known = sorted(ends, key=lambda end: (end.at, end.rank))
    preempted = [end for end in known if end.state is OutcomeState.PREEMPTED]
    failure = next(_causes(known, evidence), None)
    if failure is not None:
        return Outcome(state=OutcomeState.FAILED, message=failure.message, failure=failure)
    if preempted or _stopped(known, evidence):
        step = max((end.step for end in preempted if end.step is not None), default=None)
        saved = f"saved at step {step}" if step else "stopped before there was anything new to save"
        return Outcome(state=OutcomeState.PREEMPTED, message=f"Preempted: {saved}.", step=step)
    return Outcome(state=OutcomeState.SUCCEEDED, message="Training finished.")


def _causes(known: Sequence[RankEnd], evidence: Evidence) -> Iterator[Failure | None]:
    """Why training failed, from the most to the least telling cause; None where it was only stopped."""
    failures = [(end, end.failure) for end in known if end.failure is not None]
    silent, stopped = _silent(known, evidence), _stopped(known, evidence)
    for end, failure in failures:
        if failure.reason not in {Reason.RENDEZVOUS, Reason.TRAINER_ERROR}:
            yield _of(end, failure, evidence)
    if evidence.stalled is not None:
        yield _stalled(evidence)
    if silent and not stopped and (evidence.memory_ran_out or evidence.killed_by):
        yield _died(silent, evidence)
    for end, failure in failures:
        if failure.reason is Reason.TRAINER_ERROR and not _for_another(end, evidence):
            yield _of(end, failure, evidence)
    if stopped or any(end.state is OutcomeState.PREEMPTED for end in known):
        yield None
    if silent:
        yield _died(silent, evidence)
    for end, failure in failures:
        yield _of(end, failure, evidence)
    if evidence.exit_code != 0:
        message = f"the training processes finished, but their launcher failed with exit code {evidence.exit_code}"
        yield RunError(Reason.TRAINER_ERROR, message).failure(log_tail=evidence.log_tail)


def _silent(known: Sequence[RankEnd], evidence: Evidence) -> list[int]:
    return sorted(set(evidence.ranks) - {end.rank for end in known})


def _stopped(known: Sequence[RankEnd], evidence: Evidence) -> bool:
    """Whether they were asked to stop: by the launcher, or one of them by somebody else, before it could save."""
    return evidence.asked_at is not None or (bool(_silent(known, evidence)) and evidence.killed_by == {signal.SIGTERM})


def _for_another(end: RankEnd, evidence: Evidence) -> bool:
    """Whether a process failed while it was loading because another one had been stopped."""
    return end.step is None and evidence.asked_at is not None and end.at >= evidence.asked_at


def _of(end: RankEnd, failure: Failure, evidence: Evidence) -> Failure:
    own_tail = failure.log_tail or evidence.log_tail[-2048:] or None
    return failure.model_copy(update={"rank": end.rank, "log_tail": own_tail})


def _stalled(evidence: Evidence) -> Failure:
    message = f"training made no progress for {evidence.stalled:.0f} s, and was ended"
    error = RunError(Reason.STALLED, message, hint=Reason.STALLED.traits.hint)
    return error.failure(log_tail=evidence.log_tail)


def _died(silent: Sequence[int], evidence: Evidence) -> Failure:
    return _why_silent(silent, evidence).failure(log_tail=evidence.log_tail)


def _why_silent(silent: Sequence[int], evidence: Evidence) -> RunError:
    ranks = ", ".join(map(str, silent))
    if evidence.memory_ran_out:
        return RunError(
            Reason.HOST_OUT_OF_MEMORY,
            f"the kernel ended training process {ranks} because the pod's memory ran out",
            hint="Raise resources.limits.memory, or lower training.perDeviceBatchSize.",
            rank=silent[0],
        )
    if evidence.disk_is_full and evidence.killed_by <= {signal.SIGBUS}:  # the end of a file that was mapped to memory
        return RunError(
            Reason.DISK_FULL,
            f"training process {ranks} ended without a word, and the volume takes no more data",
            hint="Set a larger spec.storage.size; the checkpoints saved so far are complete and kept.",
            rank=silent[0],
        )
    if (found := gpu_errors.recognise(evidence.telling)) is not None:
        return RunError(found.reason, found.message, hint=found.hint, rank=found.rank)
    # NCCL ends a process with SIGABRT when another one does not answer.
    if evidence.killed_by <= {signal.SIGABRT} and tells_of_lost_contact(evidence.log_tail):
        return RunError(
            Reason.RENDEZVOUS,
            "the training processes could not find each other, or lost contact",
            hint="Check that all pods of the run have started, and that no NetworkPolicy blocks traffic between them.",
        )
    if evidence.killed_by:
        names = ", ".join(signal.Signals(number).name for number in sorted(evidence.killed_by))
        message = f"training process {ranks} was killed by {names}"
        return RunError(Reason.TRAINER_ERROR, message, rank=silent[0])
    message = (
        f"training process {ranks} ended without reporting an error (its launcher's exit code: {evidence.exit_code})"
    )
    return RunError(Reason.TRAINER_ERROR, message, rank=silent[0])
