"""The table of reasons: what follows from each."""

import pytest
from pydantic import TypeAdapter, ValidationError

from dporun_api.pod import ExitCode
from dporun_api.results import HealthState
from dporun_api.v1alpha1.reasons import FAILURES, FailureReason, Phase, Reason, traits_of


def test_a_reason_is_its_word() -> None:
    assert Reason("Queued") is Reason.QUEUED
    assert f"{Reason.QUEUED}" == Reason.QUEUED.value == "Queued"


@pytest.mark.parametrize("reason", FAILURES)
def test_a_failure_is_a_warning_and_has_an_exit_code(reason: Reason) -> None:
    assert reason.traits.event == "Warning"
    assert reason.traits.exit_code is not ExitCode.OK


def test_only_failures_are_failures() -> None:
    adapter = TypeAdapter[Reason](FailureReason)
    assert adapter.validate_python("DiskFull") is Reason.DISK_FULL
    with pytest.raises(ValidationError):
        adapter.validate_python("Scheduled")


def test_a_reason_of_another_version_is_an_error_of_the_trainer() -> None:
    assert TypeAdapter[Reason](FailureReason).validate_python("NoSuchReason") is Reason.TRAINER_ERROR


@pytest.mark.parametrize("state", HealthState)
def test_every_state_of_health_is_a_reason(state: HealthState) -> None:
    ill = state not in {HealthState.ON_TRACK, HealthState.UNKNOWN}
    assert (Reason(state.value).traits.event == "Warning") is ill


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (ExitCode.CONFIG_INVALID, Reason.INVALID_SPEC),
        (ExitCode.DATA_INVALID, Reason.DATASET_INVALID),
        (ExitCode.GPU_OUT_OF_MEMORY, Reason.GPU_OUT_OF_MEMORY),
        (ExitCode.NON_FINITE, Reason.NON_FINITE_LOSS),
        (ExitCode.ARCHIVE_FAILED, Reason.ARCHIVE_FAILED),
        (ExitCode.PREEMPTED, Reason.PREEMPTED),
        (ExitCode.ERROR, Reason.TRAINER_ERROR),
        (139, Reason.TRAINER_ERROR),
    ],
)
def test_the_reason_behind_an_exit_code(code: int, reason: Reason) -> None:
    assert Reason.of_exit_code(code) is reason


def test_what_may_pass_is_retried() -> None:
    retried = {reason for reason in Reason if reason.traits.retried}
    infrastructure = {Reason.GPU_FAULT, Reason.NODE_LOST, Reason.RENDEZVOUS, Reason.STALLED}
    assert retried == {Reason.TRAINER_ERROR, Reason.NOT_PREPARED} | infrastructure


def test_the_phase_of_work_under_way() -> None:
    assert {reason: reason.traits.phase for reason in Reason if reason.traits.phase} == {
        Reason.PREPARING: Phase.PREPARING,
        Reason.VOLUME_REPLACED: Phase.PREPARING,
        Reason.QUEUED: Phase.QUEUED,
        Reason.UNSCHEDULABLE: Phase.QUEUED,
        Reason.TRAINING: Phase.TRAINING,
        Reason.ENDING: Phase.TRAINING,
        Reason.EVALUATING: Phase.EVALUATING,
        Reason.ARCHIVING: Phase.ARCHIVING,
        Reason.ARCHIVE_RETRYING: Phase.ARCHIVING,
    }


def test_a_word_of_another_version_has_no_traits() -> None:
    assert traits_of("WordOfTomorrow").phase is None
    assert traits_of("Queued") is Reason.QUEUED.traits
