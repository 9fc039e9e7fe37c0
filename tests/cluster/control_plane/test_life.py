"""The life of one run, from apply to deletion: each fixture brings it a step further and keeps what was to be seen."""

import json
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dporun_api.pod import ExitCode
from dporun_api.results import Progress, Stage
from dporun_testing import playing_kubelet as kubelet
from dporun_testing.kubectl import apply, eventually, exists, get, kubectl, temporary_namespace, wait_condition
from dporun_testing.operator_process import OperatorProcess, operators
from dporun_testing.played_run import (
    ARCHIVED,
    MEMORY,
    PREPARED,
    TOO_LARGE,
    TRAINED,
    delete,
    manifest,
    status,
    training_pod_server,
    wait_gone,
    wait_phase,
)

pytestmark = pytest.mark.cluster

RECONCILED = 'dporun_operator_reconciliations_total{result="ok"}'


@pytest.fixture(scope="module")
def namespace(cluster: Path) -> Iterator[str]:  # noqa: ARG001  wanted for what it does
    with temporary_namespace(f"life-{secrets.token_hex(3)}") as name:
        yield name


@pytest.fixture(scope="module")
def operator(
    service_account: Path, namespace: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OperatorProcess]:
    with operators(service_account, tmp_path_factory.mktemp("operator-of-life")) as start:
        yield start(DPORUN_NAMESPACES=namespace)


@pytest.fixture(scope="module")
def pod_server() -> Iterator[list[bytes]]:
    with training_pod_server() as answers:
        yield answers


@dataclass(frozen=True)
class Accepted:
    """The run and its objects, when the pod that prepares it is there."""

    run: dict[str, Any]
    objects: dict[str, dict[str, Any]]
    """By kind."""
    claim: str

    @property
    def uid(self) -> str:
        return str(self.run["metadata"]["uid"])


@pytest.fixture(scope="module")
def accepted(operator: OperatorProcess, namespace: str) -> Accepted:  # noqa: ARG001  wanted for what it does
    apply(manifest(resources={"gpusPerNode": 1, "gpuMemory": "24Gi"}), namespace)
    kubelet.pod_of(namespace, "demo-prepare")
    run = get("dporun", "demo", namespace)
    claim = f"demo-results-{run['metadata']['uid'][:8]}"
    names = {"job": "demo-prepare", "configmap": "demo-config", "pvc": claim}
    return Accepted(run, {kind: get(kind, name, namespace) for kind, name in names.items()}, claim)


def test_objects_bear_the_label_of_the_run(accepted: Accepted) -> None:
    for kind, found in accepted.objects.items():
        assert found["metadata"]["labels"]["dporun.io/run-uid"] == accepted.uid, kind


def test_all_but_what_the_archive_needs_follows_the_run(accepted: Accepted) -> None:
    owners = {
        kind: [owner["uid"] for owner in found["metadata"].get("ownerReferences", ())]
        for kind, found in accepted.objects.items()
    }
    assert owners == {"job": [accepted.uid], "configmap": [], "pvc": []}


def test_the_run_has_our_finalizer_and_nothing_of_kopf(accepted: Accepted) -> None:
    assert accepted.run["metadata"]["finalizers"] == ["dporun.io/archive"]
    assert not [key for key in accepted.run["metadata"]["annotations"] if "kopf" in key]


def test_the_config_map_holds_the_run(accepted: Accepted) -> None:
    assert json.loads(accepted.objects["configmap"]["data"]["run.json"])["run"]["uid"] == accepted.uid


@dataclass(frozen=True)
class Training:
    """The run when its training pod and TensorBoard run."""

    pod: str
    status: dict[str, Any]


@pytest.fixture(scope="module")
def training(accepted: Accepted, namespace: str, pod_server: list[bytes]) -> Training:  # noqa: ARG001
    kubelet.end(namespace, "demo-prepare", PREPARED)
    pod = kubelet.run(namespace, "demo-train-1")
    wait_condition("demo", "Running", namespace, seconds=30)
    wait_condition("demo", "TensorBoardReady", namespace, seconds=30)
    return Training(pod, status(namespace))


def test_the_run_says_whether_its_model_fits(training: Training) -> None:
    conditions = {condition["type"]: condition for condition in training.status["conditions"]}
    assert (conditions["Fits"]["status"], conditions["Fits"]["reason"]) == ("True", "SufficientMemory")
    assert "It fits into 24.0 GiB with gradient checkpointing." in conditions["Fits"]["message"]
    assert training.status["memory"]["weights"] == MEMORY.weights


def test_the_training_pod_asks_for_the_memory_of_its_model(training: Training, namespace: str) -> None:
    (container,) = get("pod", training.pod, namespace)["spec"]["containers"]
    assert container["resources"]["requests"]["memory"] == "9Gi"


def test_a_model_that_can_never_fit_holds_no_gpu(operator: OperatorProcess, namespace: str) -> None:  # noqa: ARG001
    apply(manifest("large", resources={"gpuMemory": "80Gi"}), namespace)
    kubelet.end(namespace, "large-prepare", TOO_LARGE, exit_code=ExitCode.GPU_OUT_OF_MEMORY)
    wait_condition("large", "Finished", namespace, seconds=30)
    found = status(namespace, "large")
    conditions = {condition["type"]: (condition["status"], condition["reason"]) for condition in found["conditions"]}
    assert conditions["Fits"] == conditions["Succeeded"] == ("False", "GPUOutOfMemory")
    assert not exists("job", "large-train-1", namespace)


def test_the_dataset_is_what_the_preparation_said(training: Training) -> None:
    assert training.status["dataset"] == {
        "trainRows": 90,
        "validationRows": 10,
        "droppedRows": 0,
        "warnings": [],
    }


@dataclass(frozen=True)
class Reported:
    """The run after its pod has reported step 40, and nonsense thereafter."""

    progress: dict[str, Any]
    after_nonsense: dict[str, Any]
    row: list[str]
    """Of ``kubectl get``."""


@pytest.fixture(scope="module")
def reported(training: Training, operator: OperatorProcess, namespace: str, pod_server: list[bytes]) -> Reported:  # noqa: ARG001
    report = Progress(
        stage=Stage.TRAINING, percent=40, step=40, total_steps=100, eta_seconds=90, updated_at=time.time()
    )
    pod_server.append(report.to_json().encode())
    eventually(lambda: status(namespace).get("progress", {}).get("step") == 40, seconds=20, what="step 40")
    progress = status(namespace)["progress"]
    pod_server.append(b'{"version": 1, "step": -3, "percent": 1e999}')
    asked = operator.metric(RECONCILED)
    eventually(lambda: operator.metric(RECONCILED) > asked + 2, seconds=20, what="the operator asks on")
    row = kubectl("get", "dporuns", "-n", namespace, "--no-headers").split()
    return Reported(progress, status(namespace)["progress"], row)


def test_progress_comes_from_the_pod(reported: Reported) -> None:
    assert reported.progress["step"] == 40


def test_nonsense_from_the_pod_changes_nothing(reported: Reported) -> None:
    assert reported.after_nonsense["step"] == 40


def test_kubectl_get_shows_the_progress(reported: Reported) -> None:
    assert reported.row[:3] == ["demo", "Training", "40/100"]


@pytest.fixture(scope="module")
def archive_job(reported: Reported, namespace: str) -> dict[str, Any]:  # noqa: ARG001  comes before
    """The Job that archives the run, while it does."""
    kubelet.end(namespace, "demo-train-1", TRAINED)
    wait_phase(namespace, "Archiving")
    return get("job", "demo-archive-1", namespace)


def test_the_archiving_does_not_follow_the_run(archive_job: dict[str, Any]) -> None:
    assert "ownerReferences" not in archive_job["metadata"]


@dataclass(frozen=True)
class Finished:
    """The run at its end."""

    status: dict[str, Any]
    wide: str
    """What ``kubectl get -o wide`` prints."""
    tensorboard: bool
    events: list[dict[str, Any]]
    """Of the run itself."""


@pytest.fixture(scope="module")
def finished(archive_job: dict[str, Any], namespace: str) -> Finished:  # noqa: ARG001  comes before
    kubelet.end(namespace, "demo-archive-1", ARCHIVED)
    wait_condition("demo", "Finished", namespace, seconds=30)
    wide = kubectl("get", "dporuns", "-n", namespace, "-o", "wide")
    tensorboard = exists("deployment", "demo-tensorboard", namespace)
    events = json.loads(kubectl("get", "events", "-n", namespace, "-o", "json"))["items"]
    about = [event["involvedObject"] for event in events]
    ours = [event for event, its in zip(events, about, strict=True) if (its["kind"], its["name"]) == ("DPORun", "demo")]
    return Finished(status(namespace), wide, tensorboard, ours)


def test_the_run_succeeds(finished: Finished) -> None:
    assert finished.status["phase"] == "Succeeded"


@pytest.mark.parametrize("condition", ["Accepted", "Prepared", "Evaluated", "Healthy", "Archived", "Succeeded"])
def test_conditions_are_true_at_the_end(finished: Finished, condition: str) -> None:
    assert {c["type"]: c["status"] for c in finished.status["conditions"]}[condition] == "True"


def test_the_status_names_the_archive(finished: Finished, accepted: Accepted) -> None:
    assert finished.status["archive"]["uri"] == f"s3://bucket/runs/demo-{accepted.uid[:8]}"


def test_the_status_holds_verdict_and_best_checkpoint(finished: Finished) -> None:
    assert finished.status["verdict"] == {
        "state": "Good",
        "passed": True,
        "gates": [{"name": "accuracy", "limit": 0.8, "measured": 0.9, "outcome": "Passed", "neededToDecide": 62}],
        "reasons": ["accuracy 0.9"],
    }
    best = {"step": 80, "epoch": 1.6, "evalLoss": 0.31, "path": "checkpoint-80"}
    assert finished.status["bestCheckpoint"] == best


def test_kubectl_get_wide_shows_checkpoint_and_archive(finished: Finished) -> None:
    assert "checkpoint-80" in finished.wide
    assert "results are in s3://bucket/runs/demo" in finished.wide


def test_tensorboard_stays_after_the_end(finished: Finished) -> None:
    assert finished.tensorboard


def test_what_has_been_reached_is_an_event_of_the_operator(finished: Finished) -> None:
    """Not every transition is: what the next Event implies would cost a write and tell nothing."""
    assert {event["reportingComponent"] for event in finished.events} == {"dporun-operator"}
    reasons = {event["reason"] for event in finished.events}
    assert reasons == {"Prepared", "Training", "Evaluated", "Archived", "Succeeded"}


def test_a_transition_is_told_once(finished: Finished) -> None:
    assert [event["reason"] for event in finished.events].count("Training") == 1


@pytest.fixture(scope="module")
def runs_that_succeeded(finished: Finished, training: Training, operator: OperatorProcess, namespace: str) -> float:  # noqa: ARG001
    """The operator's count of them, after somebody has deleted the Jobs by hand."""
    kubectl("delete", "job", "--all", "-n", namespace, "--wait=false")
    kubelet.bury(namespace, training.pod)
    wait_gone("job", "demo-train-1", namespace)
    return operator.metric('dporun_operator_runs{phase="Succeeded"}')


def test_a_finished_run_is_counted_as_succeeded(runs_that_succeeded: float) -> None:
    assert runs_that_succeeded == 1


@pytest.fixture(scope="module")
def left(runs_that_succeeded: float, accepted: Accepted, namespace: str) -> list[str]:  # noqa: ARG001  comes before
    """What is left of the run when it and its volume are gone."""
    delete(namespace)
    kubelet.pod_of(namespace, "demo-archive-2")
    assert exists("pvc", accepted.claim, namespace), "the archive is verified first"
    kubelet.end(namespace, "demo-archive-2", ARCHIVED)
    wait_gone("dporun", "demo", namespace)
    wait_gone("pvc", accepted.claim, namespace)
    objects = [("configmap", "demo-config"), ("job", "demo-train-1")]
    return [f"{kind}/{name}" for kind, name in objects if exists(kind, name, namespace)]


def test_a_deleted_run_takes_everything_with_it(left: list[str]) -> None:
    """Nor does what was deleted by hand come back: the end is final."""
    assert left == []
