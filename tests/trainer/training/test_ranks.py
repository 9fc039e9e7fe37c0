from pathlib import Path
from typing import Any

import pytest

from dporun_api.results import Outcome, OutcomeState
from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer.errors import RunError
from dporun_trainer.outcome import exit_code
from dporun_trainer.training import ranks
from dporun_trainer.training.ranks import Evidence, RankEnd

KILLED = """
Root Cause (first observed failure):
  exitcode  : -9 (pid: 7073)
  traceback : Signal 9 (SIGKILL) received by PID 7073
"""
STOPPED = KILLED.replace("-9", "-15").replace("Signal 9 (SIGKILL)", "Signal 15 (SIGTERM)")
FAILED = """
Other Failures:
  traceback : Signal 15 (SIGTERM) received by PID 7074
Root Cause (first observed failure):
  exitcode  : 1 (pid: 7073)
"""
NCCL = """
[rank1]:[E ProcessGroupNCCL.cpp:629] [Rank 1] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=7, ...
terminate called after throwing an instance of 'c10::DistBackendError'
Root Cause (first observed failure):
  exitcode  : -6 (pid: 7073)
  traceback : Signal 6 (SIGABRT) received by PID 7073
"""
SEGFAULT = "traceback : Signal 11 (SIGSEGV) received by PID 7073"
NOBODY_THERE = "torch.distributed.DistNetworkError: The client socket has timed out after 900000ms"


def done(rank: int) -> RankEnd:
    return RankEnd(rank=rank, state=OutcomeState.SUCCEEDED, at=9, step=18)


def saved(rank: int, step: int | None = 7) -> RankEnd:
    return RankEnd(rank=rank, state=OutcomeState.PREEMPTED, at=9, step=step)


def failed(rank: int, reason: Reason, at: float = 9) -> RankEnd:
    failure = RunError(reason, f"rank {rank}: {reason}").failure()
    return RankEnd(rank=rank, state=OutcomeState.FAILED, at=at, failure=failure)


def fold(*ends: RankEnd, log_tail: str = "last words", exit_code: int = 1, **more: Any) -> Outcome:
    return ranks.fold(ends, Evidence(ranks=[0, 1], log_tail=log_tail, exit_code=exit_code, **more))


def test_all_done() -> None:
    assert fold(done(0), done(1), exit_code=0).state is OutcomeState.SUCCEEDED


def test_done_with_a_failing_launcher_is_no_success() -> None:
    assert fold(done(0), done(1), exit_code=3).state is OutcomeState.FAILED


@pytest.mark.parametrize("asked_at", [8.0, None])
def test_saved_and_stopped_as_any_of_the_pods_was_asked(asked_at: float | None) -> None:
    outcome = fold(saved(0), saved(1), asked_at=asked_at)
    assert (outcome.state, outcome.step, exit_code(outcome)) == (OutcomeState.PREEMPTED, 7, 75)
    assert "saved at step 7" in outcome.message


def test_killed_while_stopping_is_a_preemption() -> None:
    outcome = fold(asked_at=8, log_tail=KILLED)
    assert outcome.state is OutcomeState.PREEMPTED
    assert "before there was anything" in outcome.message


@pytest.mark.parametrize(
    ("reason", "code"),
    [(Reason.GPU_OUT_OF_MEMORY, 66), (Reason.NON_FINITE_LOSS, 67), (Reason.DISK_FULL, 1)],
)
def test_the_failing_process_tells_reason_and_exit_code(reason: Reason, code: int) -> None:
    outcome = fold(failed(1, reason), done(0))
    assert outcome.failure is not None
    assert (outcome.failure.reason, outcome.failure.rank, exit_code(outcome)) == (reason, 1, code)
    assert outcome.failure.log_tail == "last words"


def test_the_first_failure_counts() -> None:
    """To lose contact is never the first."""
    outcome = fold(failed(0, Reason.RENDEZVOUS, at=1), failed(1, Reason.GPU_OUT_OF_MEMORY, at=2))
    assert outcome.failure is not None
    assert outcome.failure.reason is Reason.GPU_OUT_OF_MEMORY
    outcome = fold(failed(0, Reason.DISK_FULL, at=5), failed(1, Reason.GPU_OUT_OF_MEMORY, at=4))
    assert outcome.failure is not None
    assert outcome.failure.rank == 1


@pytest.mark.parametrize(
    ("log_tail", "reason"),
    [
        (KILLED, Reason.TRAINER_ERROR),
        (SEGFAULT, Reason.TRAINER_ERROR),
        (NOBODY_THERE, Reason.RENDEZVOUS),
        (NCCL, Reason.RENDEZVOUS),
        ("", Reason.TRAINER_ERROR),
    ],
)
def test_a_process_that_died_without_a_word(log_tail: str, reason: Reason) -> None:
    outcome = fold(failed(0, Reason.RENDEZVOUS), log_tail=log_tail)
    assert outcome.failure is not None
    assert outcome.failure.reason is reason
    if reason is not Reason.RENDEZVOUS:
        assert "training process 1" in outcome.failure.message


def test_only_the_kernel_says_that_memory_ran_out() -> None:
    outcome = fold(failed(0, Reason.RENDEZVOUS), log_tail=KILLED, memory_ran_out=True)
    assert outcome.failure is not None
    assert (outcome.failure.reason, outcome.failure.rank) == (Reason.HOST_OUT_OF_MEMORY, 1)
    killed = fold(failed(0, Reason.RENDEZVOUS), log_tail=KILLED).failure
    assert killed is not None
    assert "training process 1 was killed by SIGKILL" in killed.message


def test_a_killed_process_tells_more_than_others_errors() -> None:
    outcome = fold(failed(0, Reason.TRAINER_ERROR), log_tail=KILLED)
    assert outcome.failure is not None
    assert (outcome.failure.rank, outcome.failure.message) == (1, "training process 1 was killed by SIGKILL")
    outcome = fold(failed(0, Reason.TRAINER_ERROR), log_tail=FAILED)
    assert outcome.failure is not None
    assert outcome.failure.rank == 0


def test_a_process_that_a_broken_gpu_ended() -> None:
    """It aborts without a file of its own; another one timed out waiting for it."""
    aborted = KILLED.replace("-9", "-6").replace("Signal 9 (SIGKILL)", "Signal 6 (SIGABRT)")
    said = "[rank1]: CUDA error: uncorrectable ECC error encountered\n"
    failure = fold(failed(0, Reason.RENDEZVOUS), log_tail=aborted, telling=said).failure
    assert failure is not None
    assert (failure.reason, failure.rank, failure.reason.traits.retried) == (Reason.GPU_FAULT, 1, True)


def test_stopped_while_loading_by_somebody_else_is_a_preemption() -> None:
    """Before there is anything to save, a process dies of SIGTERM; nobody but who stops pods and nodes sends it."""
    assert fold(log_tail=STOPPED).state is OutcomeState.PREEMPTED
    assert fold(failed(0, Reason.RENDEZVOUS), log_tail=STOPPED).state is OutcomeState.PREEMPTED


def test_what_fails_while_loading_is_stopped_is_no_failure() -> None:
    """The others miss a process that the signal has ended; in words that nobody foresaw."""
    surprised = failed(0, Reason.TRAINER_ERROR, at=9)
    assert fold(surprised, asked_at=8).state is OutcomeState.PREEMPTED
    assert fold(surprised, asked_at=10).state is OutcomeState.FAILED
    assert fold(surprised.model_copy(update={"step": 3}), asked_at=8).state is OutcomeState.FAILED
    assert fold(failed(0, Reason.DISK_FULL, at=9), asked_at=8).state is OutcomeState.FAILED


def test_stalled_processes_were_killed_for_that() -> None:
    outcome = fold(exit_code=-9, stalled=1920)
    assert outcome.failure is not None
    assert (outcome.failure.reason, outcome.failure.reason.traits.retried) == (Reason.STALLED, True)
    assert "1920 s" in outcome.failure.message


def test_a_process_that_died_without_a_word_on_a_full_disk() -> None:
    """A file that is mapped to memory ends a process with SIGBUS when it cannot grow."""
    bus_error = KILLED.replace("-9", "-7").replace("Signal 9 (SIGKILL)", "Signal 7 (SIGBUS)")
    for log_tail, reason in ((bus_error, Reason.DISK_FULL), (KILLED, Reason.TRAINER_ERROR)):
        outcome = fold(failed(0, Reason.RENDEZVOUS), log_tail=log_tail, disk_is_full=True)
        assert outcome.failure is not None
        assert outcome.failure.reason is reason


def test_contact_lost_with_another_pod() -> None:
    outcome = fold(failed(0, Reason.RENDEZVOUS), failed(1, Reason.RENDEZVOUS))
    assert outcome.failure is not None
    assert outcome.failure.reason is Reason.RENDEZVOUS


def test_end_files_are_read_back_and_torn_ones_are_not(tmp_path: Path) -> None:
    ranks.write(tmp_path, saved(0))
    (tmp_path / "rank-1.json").write_text('{"rank": 1')
    assert ranks.read(tmp_path) == [saved(0)]
