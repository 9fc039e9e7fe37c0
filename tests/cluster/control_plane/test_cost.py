"""What a run costs: the writes that the operator sends for a whole life, and for none."""

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from dporun_api.results import BestCheckpoint, Health, HealthState, Metrics, Progress, Stage
from dporun_testing import playing_kubelet as kubelet
from dporun_testing.kubectl import apply, eventually, get, wait_condition
from dporun_testing.operator_process import OperatorProcess
from dporun_testing.played_run import (
    ARCHIVED,
    PREPARED,
    TRAINED,
    delete,
    manifest,
    training_pod_server,
    wait_gone,
    wait_phase,
)

pytestmark = pytest.mark.cluster

LIFE = 30
"""Writes from ``kubectl apply`` until TensorBoard serves the finished run, Events and progress included."""
DELETION = 16
"""Writes from ``kubectl delete`` until nothing is left, verification of the archive included."""

LOOKS = 'dporun_operator_reconciliations_total{result="ok"}'
STEPS = 60
BEST = BestCheckpoint(step=20, eval_loss=0.61, path="checkpoint-20")


def writes(operator: OperatorProcess) -> Counter[str]:
    return Counter({what: count for what, count in operator.requests().items() if not what.startswith("GET ")})


def report(stage: Stage, step: int = 0, **more: Any) -> bytes:
    """What the training pod answers."""
    loss = round(0.69 - 0.004 * step, 3)
    progress = Progress(
        stage=stage,
        percent=100 * step / STEPS,
        step=step,
        total_steps=STEPS if step else 0,
        epoch=2 * step / STEPS,
        eta_seconds=STEPS - step if step else None,
        samples_per_second=8.1,
        metrics=Metrics(train_loss=loss, eval_loss=loss, reward_accuracy=0.5 + step / 200, reward_margin=step / 30),
        best_checkpoint=BEST if step >= BEST.step else None,
        health=Health(state=HealthState.ON_TRACK, evidence=(f"Validation loss fell to {loss}.",)) if step else None,
        updated_at=time.time(),
        **more,
    )
    return progress.to_json().encode()


def tell(answers: list[bytes], operator: OperatorProcess, told: bytes) -> None:
    """Let the training pod answer so until the operator has heard it."""
    answers.append(told)
    heard = operator.metric(LOOKS)
    eventually(lambda: operator.metric(LOOKS) >= heard + 2, seconds=30, what="the operator asks")


def live(operator: OperatorProcess, namespace: str) -> str:
    """A run as that of examples/tiny, from ``kubectl apply`` to its end; returns its TensorBoard's pod."""
    with training_pod_server() as answers:
        answers[:] = [report(Stage.LOADING)]
        apply(manifest(), namespace)
        kubelet.run(namespace, "demo-prepare")
        wait_phase(namespace, "Preparing")
        kubelet.end(namespace, "demo-prepare", PREPARED)
        kubelet.run(namespace, "demo-train-1")
        wait_condition("demo", "Running", namespace, seconds=30)
        wait_condition("demo", "TensorBoardReady", namespace, seconds=30)
        for step in range(5, STEPS + 1, 5):
            tell(answers, operator, report(Stage.TRAINING, step))
        for example in range(10, 61, 10):
            tell(answers, operator, report(Stage.EVALUATING, STEPS, detail=f"generating {example}/60"))
        tell(answers, operator, report(Stage.REPORTING, STEPS))
        kubelet.end(namespace, "demo-train-1", TRAINED)
    kubelet.run(namespace, "demo-archive-1")
    kubelet.end(namespace, "demo-archive-1", ARCHIVED)
    wait_condition("demo", "Finished", namespace, seconds=30)
    pod = kubelet.run_tensorboard(namespace, "demo")
    wait_condition("demo", "TensorBoardReady", namespace, seconds=30)
    return pod


def test_a_life_costs_few_writes(start_operator: Callable[..., OperatorProcess], namespace: str) -> None:
    operator = start_operator(DPORUN_NAMESPACES=namespace)
    tensorboard = live(operator, namespace)
    life = writes(operator)
    delete(namespace)
    stops = "deletionTimestamp"
    eventually(lambda: stops in get("pod", tensorboard, namespace)["metadata"], seconds=30, what="TensorBoard stops")
    kubelet.bury(namespace, tensorboard)
    kubelet.end(namespace, "demo-archive-2", ARCHIVED)
    wait_gone("dporun", "demo", namespace)
    deletion = writes(operator) - life
    print(f"life: {life.total()} {life}; deletion: {deletion.total()} {deletion}")
    assert life.total() <= LIFE, life
    assert deletion.total() <= DELETION, deletion


def test_looking_at_everything_again_writes_nothing(
    start_operator: Callable[..., OperatorProcess], namespace: str
) -> None:
    """Neither a resync nor a new operator writes what is there already."""
    first = start_operator(DPORUN_NAMESPACES=namespace, DPORUN_RESYNC_SECONDS="1")
    apply(manifest(), namespace)
    kubelet.end(namespace, "demo-prepare", PREPARED)
    kubelet.run(namespace, "demo-train-1")
    wait_condition("demo", "TensorBoardReady", namespace, seconds=30)
    kubelet.end(namespace, "demo-train-1", TRAINED)
    kubelet.end(namespace, "demo-archive-1", ARCHIVED)
    kubelet.run_tensorboard(namespace, "demo")
    wait_condition("demo", "TensorBoardReady", namespace, seconds=30)
    apply(manifest("waits"), namespace)
    kubelet.pod_of(namespace, "waits-prepare")
    wait_phase(namespace, "Preparing", "waits")
    first.stop()
    second = start_operator(DPORUN_NAMESPACES=namespace, DPORUN_RESYNC_SECONDS="1")
    asked = ("GET deployments", "GET services", "GET configmaps", "GET persistentvolumeclaims")
    eventually(
        lambda: all(second.requests()[what] >= 3 for what in asked), seconds=60, what=f"several looks: {second.log()}"
    )
    assert not writes(second)
