"""One run, suspended and resumed in every phase, against a real API server and Job controller."""

import json
from typing import Any

import pytest

from dporun_testing import playing_kubelet as kubelet
from dporun_testing.kubectl import apply, eventually, get, kubectl, wait_condition
from dporun_testing.played_run import ARCHIVED, PREPARED, TRAINED, manifest, status, wait_phase

pytestmark = pytest.mark.cluster


def suspend(namespace: str, value: bool) -> None:
    patch = json.dumps({"spec": {"suspend": value}})
    kubectl("patch", "dporun", "demo", "-n", namespace, "--type=merge", "-p", patch)


def stops(namespace: str, pod: str) -> None:
    """The pod is asked to stop, and does."""
    eventually(lambda: "deletionTimestamp" in get("pod", pod, namespace)["metadata"], seconds=30, what="the pod stops")
    kubelet.stop(namespace, pod)


def suspended(namespace: str) -> dict[str, Any]:
    wait_condition("demo", "Suspended", namespace, seconds=30)
    now = wait_phase(namespace, "Suspended")
    jobs = json.loads(kubectl("get", "jobs", "-n", namespace, "-o", "json"))["items"]
    assert [job["metadata"]["name"] for job in jobs if not job["status"].get("conditions")] == []
    return now


@pytest.mark.usefixtures("operator")
def test_a_run_is_suspended_and_resumed_in_every_phase(namespace: str) -> None:
    apply(manifest(suspend=True), namespace)
    assert "to go on: kubectl" in suspended(namespace)["message"]

    suspend(namespace, False)
    pod = kubelet.run(namespace, "demo-prepare")
    wait_phase(namespace, "Preparing")
    suspend(namespace, True)
    stops(namespace, pod)
    suspended(namespace)

    suspend(namespace, False)
    kubelet.end(namespace, "demo-prepare", PREPARED)
    kubelet.pod_of(namespace, "demo-train-1")
    wait_phase(namespace, "Queued")
    suspend(namespace, True)  # its pod has no node: nobody has to stop it
    assert suspended(namespace)["attempt"] == 1

    suspend(namespace, False)
    pod = kubelet.run(namespace, "demo-train-1")
    wait_phase(namespace, "Training")
    suspend(namespace, True)
    stops(namespace, pod)
    assert suspended(namespace)["attempt"] == 1

    suspend(namespace, False)
    kubelet.run(namespace, "demo-train-1")
    wait_phase(namespace, "Training")
    kubelet.end(namespace, "demo-train-1", TRAINED)
    wait_phase(namespace, "Archiving")
    suspend(namespace, True)  # what has trained is not suspended any more
    kubelet.end(namespace, "demo-archive-1", ARCHIVED)
    wait_condition("demo", "Finished", namespace, seconds=30)
    assert status(namespace)["phase"] == "Succeeded"
    assert (status(namespace)["retries"], status(namespace)["preemptions"]) == (0, 0)
