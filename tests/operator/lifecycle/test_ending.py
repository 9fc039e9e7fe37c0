"""How an attempt ended, from whatever evidence is left."""

from typing import Any

import pytest

from dporun_api.pod import ExitCode
from dporun_api.results import Failure, Outcome, OutcomeState
from dporun_api.v1alpha1.reasons import Reason
from dporun_operator.lifecycle import ending
from dporun_operator.observed import Job, Pod
from dporun_testing.builders import a_run, job, pod

SPEC = a_run().spec
GONE = "Job has reached the specified backoff limit"


def judge(*pods: dict[str, Any], state: str = "failed", message: str = GONE) -> ending.Ending:
    return ending.judge_ending(
        Job.parse(job("train", state=state, message=message)), [Pod.parse(p) for p in pods], SPEC
    )


@pytest.mark.parametrize(
    ("evidence", "message", "reason"),
    [
        ([{"exit_code": 64}], GONE, Reason.INVALID_SPEC),
        ([{"exit_code": 65}], GONE, Reason.DATASET_INVALID),
        ([{"exit_code": 66}], GONE, Reason.GPU_OUT_OF_MEMORY),
        ([{"exit_code": 67}], GONE, Reason.NON_FINITE_LOSS),
        ([{"exit_code": 1}], GONE, Reason.TRAINER_ERROR),
        ([{"exit_code": 139}], GONE, Reason.TRAINER_ERROR),
        ([{"exit_code": 137, "reason": "OOMKilled"}], GONE, Reason.HOST_OUT_OF_MEMORY),
        ([{"pod_reason": "Evicted", "pod_message": "low on ephemeral-storage"}], GONE, Reason.DISK_FULL),
        ([{"pod_reason": "Evicted", "pod_message": "low on memory"}], GONE, Reason.NODE_LOST),
        (
            [
                {
                    "pod_reason": "Evicted",
                    "pod_message": "low on ephemeral-storage",
                    "disruption": "TerminationByKubelet",
                }
            ],
            GONE,
            Reason.DISK_FULL,
        ),
        ([], GONE, Reason.NODE_LOST),
        ([], "failed with exit code 67 matching FailJob rule at index 0", Reason.NON_FINITE_LOSS),
    ],
)
def test_a_failure_without_words(evidence: list[dict[str, Any]], message: str, reason: Reason) -> None:
    end = judge(*(pod("train", state="failed", **e) for e in evidence), message=message)
    assert end.failure is not None
    assert end.failure.reason is reason
    assert end.preempted is None
    assert not end.succeeded


@pytest.mark.parametrize(
    ("evidence", "message"),
    [
        ([{"exit_code": 75}], GONE),
        ([{"exit_code": 143, "disruption": "PreemptionByScheduler"}], GONE),
        ([{"exit_code": 137, "disruption": "DeletionByPodGC"}], GONE),
        ([], "Pod team-a/x has condition DisruptionTarget matching FailJob rule at index 1"),
        ([], "Container trainer for pod team-a/x failed with exit code 75 matching FailJob rule at index 0"),
        ([{"exit_code": 0, "message": Outcome(state=OutcomeState.PREEMPTED).to_json()}], GONE),
    ],
)
def test_a_preemption(evidence: list[dict[str, Any]], message: str) -> None:
    end = judge(*(pod("train", state="failed", **e) for e in evidence), message=message)
    assert end.preempted
    assert end.failure is None
    assert not end.succeeded


LOST_CONTACT = Outcome(
    state=OutcomeState.FAILED, failure=Failure(reason=Reason.RENDEZVOUS, message="lost contact")
).to_json()
SAVED = Outcome(state=OutcomeState.PREEMPTED).to_json()


@pytest.mark.parametrize(
    "first", [{"exit_code": 75, "message": SAVED}, {"exit_code": 1, "message": LOST_CONTACT}, {"exit_code": 143}]
)
@pytest.mark.parametrize(
    ("second", "reason"),
    [
        ({"exit_code": 137, "reason": "OOMKilled"}, Reason.HOST_OUT_OF_MEMORY),
        ({"exit_code": 139}, Reason.TRAINER_ERROR),
        ({"exit_code": 66}, Reason.GPU_OUT_OF_MEMORY),
    ],
)
def test_the_pod_that_failed_by_itself_tells_the_reason(
    first: dict[str, Any], second: dict[str, Any], reason: Reason
) -> None:
    """It tells more than those that were stopped for it."""
    end = judge(pod("train", state="failed", **first), pod("train", state="failed", index=1, **second))
    assert end.failure is not None
    assert (end.failure.reason, end.failure.pod) == (reason, "demo-train-1-1-abcde")


@pytest.mark.parametrize("reason", [Reason.RENDEZVOUS, Reason.TRAINER_ERROR])
def test_to_lose_contact_with_a_preempted_pod_is_a_preemption(reason: Reason) -> None:
    """Also where the libraries found words for it that nobody foresaw."""
    lost = pod("train", state="failed", exit_code=1, message=LOST_CONTACT.replace(Reason.RENDEZVOUS, reason))
    gone = pod("train", state="failed", index=1, exit_code=137, disruption="PreemptionByScheduler")
    end = judge(lost, gone)
    assert end.failure is None
    assert "PreemptionByScheduler" in str(end.preempted)


def test_lost_contact_without_a_trace_of_the_other_fails() -> None:
    end = judge(pod("train", state="failed", exit_code=1, message=LOST_CONTACT))
    assert end.failure is not None
    assert end.failure.reason is Reason.RENDEZVOUS


@pytest.mark.parametrize("said", [None, "", "done", "{}", '{"state": "Failed"}', "x" * 4096])
def test_exit_code_0_is_no_success_without_the_words(said: str | None) -> None:
    end = judge(pod("train", state="succeeded", message=said), state="complete")
    assert not end.succeeded
    assert end.failure is not None
    assert end.failure.reason is Reason.TRAINER_ERROR


def test_success() -> None:
    said = Outcome(state=OutcomeState.SUCCEEDED, step=9).to_json()
    end = judge(pod("train", state="succeeded", message=said), state="complete")
    assert end.succeeded
    assert end.outcome is not None
    assert end.outcome.step == 9


def test_every_exit_code_that_is_told_has_a_reason() -> None:
    for code in ExitCode:
        if code not in {ExitCode.OK, ExitCode.PREEMPTED}:
            end = judge(pod("train", state="failed", exit_code=code))
            assert end.failure is not None
            assert (end.failure.reason is Reason.TRAINER_ERROR) is (code is ExitCode.ERROR)


@pytest.mark.parametrize(
    ("batch", "steps", "hint"), [(4, 2, "perDeviceBatchSize: 2"), (3, 4, "Steps: 12"), (1, 4, "maxLength")]
)
def test_the_hint_for_a_full_gpu_keeps_the_effective_batch(batch: int, steps: int, hint: str) -> None:
    spec = a_run({"training": {"perDeviceBatchSize": batch, "gradientAccumulationSteps": steps}}).spec
    assert hint in str(ending.hint(Reason.GPU_OUT_OF_MEMORY, spec))


def test_what_a_newer_trainer_says_more_is_not_in_the_way() -> None:
    said = '{"version": 1, "state": "Succeeded", "message": "Good", "carbon": {"grams": 12}}'
    end = judge(pod("train", state="succeeded", exit_code=0, message=said), state="complete")
    assert end.succeeded
    assert end.outcome is not None
    assert end.outcome.message == "Good"
