"""RunError: what a person needs, within the lengths that Failure allows."""

import os

from dporun_api.pod import ExitCode
from dporun_api.text import shorten
from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer.errors import RunError


def test_exit_code_follows_the_reason() -> None:
    codes = {reason: RunError(reason, "m").exit_code for reason in Reason}
    assert codes[Reason.INVALID_SPEC] == 64
    assert codes[Reason.DATASET_INVALID] == codes[Reason.MODEL_INVALID] == 65
    assert codes[Reason.GPU_OUT_OF_MEMORY] == 66
    assert codes[Reason.NON_FINITE_LOSS] == 67
    assert codes[Reason.ARCHIVE_FAILED] == 74
    assert codes[Reason.PREEMPTED] == 75
    assert codes[Reason.DISK_FULL] is ExitCode.ERROR
    assert ExitCode.OK not in codes.values()


def test_failure_is_cut_to_what_the_contract_allows() -> None:
    failure = RunError(Reason.TRAINER_ERROR, "m" * 5000, hint="h" * 5000, rank=3).failure(log_tail="l" * 5000)
    assert (len(failure.message), len(failure.hint or ""), len(failure.log_tail or "")) == (1024, 512, 2048)
    assert (failure.rank, failure.exit_code) == (3, 1)


def test_failure_can_name_a_file_whose_name_is_not_utf8() -> None:
    failure = RunError(Reason.TRAINER_ERROR, os.fsdecode(b"a\xff"), hint=os.fsdecode(b"b\xff")).failure()
    assert (failure.message, failure.hint) == ("a\\udcff", "b\\udcff")


def test_shorten_marks_the_cut() -> None:
    assert shorten("abc", 3) == "abc"
    assert shorten("abcd", 3) == "ab…"
