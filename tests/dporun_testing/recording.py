"""Records runs of this release in every phase: ``make record``."""

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import yaml

from dporun_api.results import Failure, Outcome, OutcomeState, Progress, Stage
from dporun_api.v1alpha1.reasons import Reason
from dporun_testing import playing_kubelet as kubelet
from dporun_testing.control_plane import CRD, control_plane
from dporun_testing.kubectl import apply, eventually, get, kubectl, wait_condition
from dporun_testing.operator_process import operators
from dporun_testing.paths import CHART
from dporun_testing.played_run import (
    PREPARED,
    TRAINED,
    delete,
    finish,
    manifest,
    status,
    train,
    training_pod_server,
    wait_phase,
)
from dporun_testing.recorded import NAMESPACE, RECORDED, record

BAD_DATA = Outcome(
    state=OutcomeState.FAILED,
    failure=Failure(reason=Reason.DATASET_INVALID, message="Row 3 has no field chosen.", exit_code=65),
)
CRASHED = Outcome(
    state=OutcomeState.FAILED, failure=Failure(reason=Reason.TRAINER_ERROR, message="It crashed.", exit_code=1)
)

Answers = list[bytes]


def _told(stage: Stage) -> bytes:
    progress = Progress(stage=stage, percent=40, step=40, total_steps=100, eta_seconds=90, updated_at=time.time())
    return progress.to_json().encode()


def preparing(_: Answers) -> None:
    apply(manifest("preparing"), NAMESPACE)
    kubelet.run(NAMESPACE, "preparing-prepare")
    wait_phase(NAMESPACE, "Preparing", "preparing")


def queued(_: Answers) -> None:
    apply(manifest("queued"), NAMESPACE)
    kubelet.end(NAMESPACE, "queued-prepare", PREPARED)
    kubelet.pod_of(NAMESPACE, "queued-train-1")
    wait_phase(NAMESPACE, "Queued", "queued")


def training(answers: Answers) -> None:
    answers.append(_told(Stage.TRAINING))
    train(NAMESPACE, "training")
    eventually(lambda: status(NAMESPACE, "training").get("progress", {}).get("step") == 40, seconds=30, what="step 40")


def evaluating(answers: Answers) -> None:
    train(NAMESPACE, "evaluating")
    answers.append(_told(Stage.EVALUATING))
    wait_phase(NAMESPACE, "Evaluating", "evaluating")


def retrying(answers: Answers) -> None:
    answers.append(_told(Stage.TRAINING))
    train(NAMESPACE, "retrying")
    kubelet.end(NAMESPACE, "retrying-train-1", CRASHED, exit_code=1)
    kubelet.run(NAMESPACE, "retrying-train-2")
    eventually(lambda: status(NAMESPACE, "retrying").get("attempt") == 2, seconds=30, what="attempt 2")
    wait_phase(NAMESPACE, "Training", "retrying")


def archiving(_: Answers) -> None:
    train(NAMESPACE, "archiving")
    kubelet.end(NAMESPACE, "archiving-train-1", TRAINED)
    kubelet.run(NAMESPACE, "archiving-archive-1")
    wait_phase(NAMESPACE, "Archiving", "archiving")


def suspended(_: Answers) -> None:
    pod = train(NAMESPACE, "suspended")
    kubectl("patch", "dporun", "suspended", "-n", NAMESPACE, "--type=merge", "-p", '{"spec": {"suspend": true}}')
    _wait_stops(pod)
    kubelet.stop(NAMESPACE, pod)
    wait_condition("suspended", "Suspended", NAMESPACE, seconds=60)


def succeeded(_: Answers) -> None:
    finish(NAMESPACE, "succeeded")


def failed(_: Answers) -> None:
    apply(manifest("failed"), NAMESPACE)
    kubelet.end(NAMESPACE, "failed-prepare", BAD_DATA, exit_code=65)
    wait_condition("failed", "Finished", NAMESPACE, seconds=60)


def stopping(_: Answers) -> None:
    pod = train(NAMESPACE, "stopping")
    delete(NAMESPACE, "stopping")
    _wait_stops(pod)
    wait_phase(NAMESPACE, "Deleting", "stopping")


def verifying(_: Answers) -> None:
    finish(NAMESPACE, "verifying")
    delete(NAMESPACE, "verifying")
    kubelet.pod_of(NAMESPACE, "verifying-archive-2")
    wait_phase(NAMESPACE, "Deleting", "verifying")


def _wait_stops(pod: str) -> None:
    eventually(lambda: "deletionTimestamp" in get("pod", pod, NAMESPACE)["metadata"], seconds=60, what="the pod stops")


UNTIL: tuple[Callable[[Answers], None], ...] = (
    preparing, queued, training, evaluating, retrying, archiving, suspended, succeeded, failed, stopping, verifying,
)  # fmt: skip
"""Bring a run, named as its function, to where it is recorded."""


def main() -> None:
    """Record all of them into the folder of this release."""
    version = str(yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))["version"])
    folder = RECORDED / version
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary, control_plane(Path(temporary)) as kubeconfig:
        os.environ["KUBECONFIG"] = str(kubeconfig)
        kubectl("create", "namespace", NAMESPACE)
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": kubelet.NODE}}
        kubectl("apply", "-f", "-", stdin=json.dumps(node))
        apply(manifest("applied"), NAMESPACE)
        found = {"applied": record("applied", 1)}
        delete(NAMESPACE, "applied")
        with operators(kubeconfig, Path(temporary)) as start, training_pod_server() as answers:
            start(DPORUN_NAMESPACES=NAMESPACE)
            for number, bring in enumerate(UNTIL, start=2):
                bring(answers)
                found[bring.__name__] = record(bring.__name__, number)
                print(f"recorded {bring.__name__}", flush=True)
    for name, text in found.items():
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    shutil.copy(CRD, folder / "crd.yaml")


if __name__ == "__main__":
    main()
