"""RunError: what a person needs, within the lengths of the contract."""

from dporun_trainer.contract.results import ExitCode, FailureReason
from dporun_trainer.errors import RunError, shorten


def test_exit_code_follows_the_reason() -> None:
    codes = {reason: RunError(reason, "m").exit_code for reason in FailureReason}
    assert codes[FailureReason.INVALID_SPEC] == 64
    assert codes[FailureReason.DATASET_INVALID] == codes[FailureReason.MODEL_INVALID] == 65
    assert codes[FailureReason.GPU_OUT_OF_MEMORY] == 66
    assert codes[FailureReason.NON_FINITE_LOSS] == 67
    assert codes[FailureReason.ARCHIVE_FAILED] == 74
    assert codes[FailureReason.PREEMPTED] == 75
    assert codes[FailureReason.DISK_FULL] is ExitCode.ERROR
    assert ExitCode.OK not in codes.values()


def test_failure_is_cut_to_what_the_contract_allows() -> None:
    failure = RunError(FailureReason.TRAINER_ERROR, "m" * 5000, hint="h" * 5000, rank=3).failure(log_tail="l" * 5000)
    assert (len(failure.message), len(failure.hint or ""), len(failure.log_tail or "")) == (1024, 512, 2048)
    assert (failure.rank, failure.exit_code) == (3, 1)


def test_shorten_marks_the_cut() -> None:
    assert shorten("abc", 3) == "abc"
    assert shorten("abcd", 3) == "ab…"
