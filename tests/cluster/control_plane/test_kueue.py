"""Runs in a queue of the real Kueue: two that share the quota of one GPU, and one that takes it from both."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from dporun_testing import kueue
from dporun_testing import playing_kubelet as kubelet
from dporun_testing.kubectl import apply, eventually, get, kubectl, temporary_namespace
from dporun_testing.operator_process import OperatorProcess, operators
from dporun_testing.played_run import ARCHIVED, PREPARED, TRAINED, manifest, status, wait_gone, wait_phase

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module", autouse=True)
def queues(cluster: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with kueue.serve(cluster, tmp_path_factory.mktemp("kueue")):
        for name, value in (("low", 10), ("high", 1000)):
            kubectl("create", "priorityclass", name, f"--value={value}")
        yield


@pytest.fixture(scope="module")
def namespace(queues: None) -> Iterator[str]:  # noqa: ARG001  wanted for what it does
    with temporary_namespace("team-queue") as name:
        kueue.quota("gpus", name, **{"nvidia.com/gpu": 1})
        yield name


@pytest.fixture(scope="module", autouse=True)
def operator(
    service_account: Path, namespace: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OperatorProcess]:
    with operators(service_account, tmp_path_factory.mktemp("operator")) as start:
        yield start(DPORUN_NAMESPACES=namespace)


def prepare(name: str, namespace: str, queue: str = "gpus", priority: str = "low") -> None:
    """Apply a run for one GPU and let it get as far as its queue."""
    run = manifest(name, scheduling={"queueName": queue})
    run["spec"]["resources"] = {"gpusPerNode": 1, "priorityClassName": priority}
    apply(run, namespace)
    kubelet.end(namespace, f"{name}-prepare", PREPARED)


def start(name: str, namespace: str, attempt: int = 1) -> str:
    """Let the pod of an attempt run once its queue admits it."""
    job = f"{name}-train-{attempt}"
    eventually(lambda: kubelet.pods(namespace, job), seconds=60, what=f"Kueue admits {job}")
    pod = kubelet.run(namespace, job)
    wait_phase(namespace, "Training", name)
    return pod


def finish(name: str, namespace: str, attempt: int = 1) -> None:
    """Let an attempt end well, and the run be archived."""
    kubelet.end(namespace, f"{name}-train-{attempt}", TRAINED)
    kubelet.end(namespace, f"{name}-archive-1", ARCHIVED)
    wait_phase(namespace, "Succeeded", name)


def queued(namespace: str) -> set[str]:
    """Jobs that Kueue knows, finished ones included."""
    items = json.loads(kubectl("get", "workloads", "-n", namespace, "-o", "json"))["items"]
    return {item["metadata"]["ownerReferences"][0]["name"] for item in items}


def managers(namespace: str, job: str) -> dict[str, list[str]]:
    """Who has written which part of a Job's spec: the manager, and the fields at the top."""
    document = json.loads(kubectl("get", "job", job, "-n", namespace, "-o", "json", "--show-managed-fields"))
    return {
        entry["manager"]: sorted(key.removeprefix("f:") for key in entry["fieldsV1"].get("f:spec", {}))
        for entry in document["metadata"]["managedFields"]
    }


def test_the_second_run_waits_until_the_first_is_done(namespace: str) -> None:
    prepare("first", namespace)
    start("first", namespace)
    prepare("second", namespace)
    wait_phase(namespace, "Queued", "second")
    assert kubelet.pods(namespace, "second-train-1") == []
    finish("first", namespace)
    start("second", namespace)


def test_a_preempted_run_queues_again_and_goes_on(namespace: str) -> None:
    """The second run trains; a third of a higher priority takes its GPU.

    Its Job may survive that, or not: the Job controller may hear of the pod's end before it forgets the pod.
    """
    (pod,) = kubelet.pods(namespace, "second-train-1")
    prepare("urgent", namespace, priority="high")
    eventually(
        lambda: "deletionTimestamp" in get("pod", pod, namespace)["metadata"], seconds=60, what="Kueue takes the GPU"
    )
    kubelet.stop(namespace, pod)
    start("urgent", namespace)
    wait_phase(namespace, "Queued", "second")
    finish("urgent", namespace)
    start("second", namespace, attempt=status(namespace, "second")["attempt"])
    found = status(namespace, "second")
    assert (found["preemptions"], found["retries"]) == (1, 0)


def test_a_suspended_run_gives_its_quota_back(namespace: str) -> None:
    prepare("third", namespace)
    wait_phase(namespace, "Queued", "third")
    (pod,) = kubelet.pods(namespace, f"second-train-{status(namespace, 'second')['attempt']}")
    kubectl("patch", "dporun", "second", "-n", namespace, "--type=merge", "-p", '{"spec": {"suspend": true}}')
    eventually(lambda: "deletionTimestamp" in get("pod", pod, namespace)["metadata"], seconds=60, what="it stops")
    kubelet.stop(namespace, pod)
    wait_phase(namespace, "Suspended", "second")
    start("third", namespace)
    kubectl("patch", "dporun", "second", "-n", namespace, "--type=merge", "-p", '{"spec": {"suspend": false}}')
    wait_phase(namespace, "Queued", "second")


def test_kueue_alone_suspends_and_resumes_jobs(namespace: str) -> None:
    """Two managers that own the same field would fight over it."""
    fields = managers(namespace, "third-train-1")
    assert "suspend" in fields["kueue"]
    assert "suspend" not in fields["dporun-operator"]


def test_a_waiting_run_speaks_with_the_words_of_kueue(namespace: str) -> None:
    words = "insufficient unused quota for nvidia.com/gpu in flavor default, 1 more needed"
    eventually(lambda: words in status(namespace, "second")["message"], seconds=60, what=words)
    assert status(namespace, "second")["message"].startswith("Waiting in queue gpus: ")


def test_a_deleted_run_leaves_the_queue(namespace: str) -> None:
    kubectl("delete", "dporun", "second", "-n", namespace, "--wait=false")
    kubelet.end(namespace, "second-archive-1", ARCHIVED)
    wait_gone("dporun", "second", namespace)
    eventually(
        lambda: not any(job.startswith("second-") for job in queued(namespace)), seconds=60, what="Kueue forgot it"
    )


def test_a_run_whose_queue_does_not_exist_says_so(namespace: str) -> None:
    prepare("lost", namespace, queue="no-such-queue")
    words = "LocalQueue no-such-queue doesn't exist"
    eventually(lambda: words in status(namespace, "lost").get("message", ""), seconds=60, what=words)
