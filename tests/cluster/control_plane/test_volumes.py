"""What becomes of volumes: when a namespace is deleted, and when somebody else makes the Job that archives them."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dporun_api.pod import ExitCode
from dporun_api.results import CheckpointUpload, Outcome, OutcomeState
from dporun_operator import names
from dporun_testing import playing_kubelet as kubelet
from dporun_testing.kubectl import apply, eventually, exists, get, kubectl, wait_condition
from dporun_testing.operator_process import OperatorProcess, without_right_on
from dporun_testing.played_run import ARCHIVED, PREPARED, TRAINED, delete, finish, status, train, wait_gone

pytestmark = pytest.mark.cluster


def uid_of_demo(namespace: str) -> str:
    return str(get("dporun", "demo", namespace)["metadata"]["uid"])


@pytest.fixture
def volume(namespace: str) -> Iterator[str]:
    """Name of a PersistentVolume that a test may bind to a claim."""
    name = f"volume-{namespace}"
    yield name
    kubectl("delete", "pv", name, "--ignore-not-found", "--wait=false")


def bind(volume: str, namespace: str, claim: str) -> None:
    """Make the volume, as a provisioner would, and wait until the claim has it."""
    spec = {
        "capacity": {"storage": "50Gi"},
        "accessModes": ["ReadWriteOnce"],
        "persistentVolumeReclaimPolicy": "Delete",
        "claimRef": {"namespace": namespace, "name": claim},
        "hostPath": {"path": "/nowhere"},
    }
    apply({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": volume}, "spec": spec}, namespace)
    eventually(lambda: get("pvc", claim, namespace)["status"]["phase"] == "Bound", seconds=60, what="claim is bound")


def delete_namespace(namespace: str, pod: str) -> None:
    """Delete the namespace of a training run, and let its pod save a checkpoint."""
    kubectl("delete", "namespace", namespace, "--wait=false")
    eventually(lambda: "deletionTimestamp" in get("pod", pod, namespace)["metadata"], seconds=60, what="the pod stops")
    kubelet.stop(namespace, pod)


def wait_namespace_gone(namespace: str) -> None:
    eventually(
        lambda: not kubectl("get", "ns", namespace, "--ignore-not-found", "-o", "name"), seconds=120, what="gone"
    )


def train_on(volume: str, namespace: str) -> tuple[str, str]:
    """Let a run train on ``volume``; returns its UID and its pod. Half of the grace period is the sweep's pause."""
    pod = train(namespace, runPolicy={"gracePeriodSeconds": 30})
    uid = uid_of_demo(namespace)
    bind(volume, namespace, f"demo-results-{uid[:8]}")
    return uid, pod


@pytest.mark.usefixtures("operator")
def test_a_deleted_namespace_leaves_the_volume_of_its_run(namespace: str, volume: str) -> None:
    uid, pod = train_on(volume, namespace)
    delete_namespace(namespace, pod)
    wait_namespace_gone(namespace)
    kept = get("pv", volume, "")
    assert kept["spec"]["persistentVolumeReclaimPolicy"] == "Retain"
    ours = {key: value for key, value in kept["metadata"]["annotations"].items() if key.startswith("dporun.io/")}
    assert ours == {
        "dporun.io/run": f"{namespace}/demo",
        "dporun.io/run-uid": uid,
        "dporun.io/folder": f"demo-{uid[:8]}",
    }
    about = f"involvedObject.name={volume},reason=VolumeRetained"
    (event,) = json.loads(kubectl("get", "events", "-n", "default", "--field-selector", about, "-o", "json"))["items"]
    assert event["type"] == "Warning"
    assert f"The results of DPORun {namespace}/demo stay on PersistentVolume {volume}" in event["message"]


@pytest.mark.usefixtures("operator")
def test_without_rights_a_deleted_namespace_waits_for_its_user(namespace: str, volume: str) -> None:
    with without_right_on("persistentvolumes"):
        uid, pod = train_on(volume, namespace)
        delete_namespace(namespace, pod)
        release = f"dporun.io/force-release={uid}"
        eventually(lambda: release in status(namespace)["message"], seconds=60, what="the way out is named")
        assert "persistentvolumes" in status(namespace)["message"]
        assert "deletionTimestamp" in get("pvc", f"demo-results-{uid[:8]}", namespace)["metadata"]
        kubectl("annotate", "dporun", "demo", "-n", namespace, release)
        wait_namespace_gone(namespace)
    assert get("pv", volume, "")["spec"]["persistentVolumeReclaimPolicy"] == "Delete"


@pytest.mark.usefixtures("operator")
def test_a_deleted_namespace_lets_an_archived_run_go(namespace: str) -> None:
    finish(namespace)
    kubectl("delete", "namespace", namespace, "--wait=false")
    wait_namespace_gone(namespace)


@pytest.mark.usefixtures("operator")
def test_a_volume_that_is_gone_is_replaced_from_the_archive(namespace: str) -> None:
    train(namespace, tensorboard={"enabled": False})
    claim = f"demo-results-{uid_of_demo(namespace)[:8]}"
    lost = get("pvc", claim, namespace)["metadata"]["uid"]
    upload = CheckpointUpload(checkpoint="checkpoint-20", step=20)
    saved = Outcome(state=OutcomeState.PREEMPTED, step=20, checkpoint_upload=upload)
    kubelet.end(namespace, "demo-train-1", saved, exit_code=ExitCode.PREEMPTED)
    kubelet.pod_of(namespace, "demo-train-2")
    kubectl("delete", "pvc", claim, "-n", namespace, "--wait=false")
    kubectl("patch", "pvc", claim, "-n", namespace, "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
    kubelet.find_no_node(namespace, "demo-train-2", f'persistentvolumeclaim "{claim}" not found')

    kubelet.end(namespace, "demo-prepare-3", PREPARED)
    made = get("pvc", claim, namespace)["metadata"]
    assert made["uid"] != lost
    assert names.RESULTS_FINALIZER in made["finalizers"]
    third = get("pod", kubelet.pod_of(namespace, "demo-train-3"), namespace)
    assert {"name": "DPORUN_UPLOADED_STEP", "value": "20"} in third["spec"]["containers"][0]["env"]
    assert not exists("job", "demo-train-2", namespace)
    about = "involvedObject.name=demo,reason=VolumeReplaced"
    (event,) = json.loads(kubectl("get", "events", "-n", namespace, "--field-selector", about, "-o", "json"))["items"]
    assert "goes on from checkpoint-20 in s3://bucket/runs/demo-" in event["message"]


def their_archive_job(namespace: str, uid: str) -> dict[str, Any]:
    """A Job that has the name and the labels of ours."""
    labels = {names.RUN_UID: uid, names.COMPONENT: "archive", names.ATTEMPT: "1"}
    container = {"name": "trainer", "image": "theirs"}
    pod = {"metadata": {"labels": labels}, "spec": {"restartPolicy": "Never", "containers": [container]}}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "demo-archive-1", "namespace": namespace, "labels": labels},
        "spec": {"suspend": True, "template": pod},
    }


@pytest.mark.usefixtures("operator")
def test_an_archive_job_of_somebody_else_is_replaced(namespace: str) -> None:
    train(namespace)
    theirs = their_archive_job(namespace, uid_of_demo(namespace))
    apply(theirs, namespace)
    known = get("job", "demo-archive-1", namespace)["metadata"]["uid"]
    kubelet.end(namespace, "demo-train-1", TRAINED)
    eventually(
        lambda: (
            exists("job", "demo-archive-1", namespace)
            and get("job", "demo-archive-1", namespace)["metadata"]["uid"] != known
        ),
        seconds=30,
        what="ours",
    )
    kubelet.end(namespace, "demo-archive-1", ARCHIVED)
    wait_condition("demo", "Archived", namespace, seconds=30)


def test_an_archive_job_whose_status_was_lost_is_made_again(operator: OperatorProcess, namespace: str) -> None:
    """The operator is killed between creating the Job and writing its UID down."""
    train(namespace)
    kubelet.end(namespace, "demo-train-1", TRAINED)
    kubelet.pod_of(namespace, "demo-archive-1")
    eventually(lambda: status(namespace).get("archive", {}).get("jobUid"), seconds=30, what="the UID is written")
    operator.kill()
    lost = status(namespace)["archive"].pop("jobUid")
    kubectl(
        "patch", "dporun", "demo", "-n", namespace, "--subresource=status", "--type=merge",
        "-p", json.dumps({"status": {"archive": {"jobUid": None}}}),
    )  # fmt: skip
    operator.start()
    eventually(
        lambda: status(namespace)["archive"].get("jobUid") not in {None, lost}, seconds=30, what="another Job is known"
    )
    kubelet.end(namespace, "demo-archive-1", ARCHIVED)
    wait_condition("demo", "Archived", namespace, seconds=30)


def test_a_run_without_its_finalizer_leaves_a_claim_that_is_told(
    start_operator: Callable[..., OperatorProcess], namespace: str
) -> None:
    operator = start_operator(DPORUN_NAMESPACES=namespace, DPORUN_RESYNC_SECONDS="2")
    train(namespace)
    claim = f"demo-results-{uid_of_demo(namespace)[:8]}"
    operator.kill()
    delete(namespace)
    kubectl("patch", "dporun", "demo", "-n", namespace, "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
    wait_gone("dporun", "demo", namespace)
    operator.start()
    eventually(lambda: operator.metric("dporun_orphaned_claims") == 1, seconds=30, what="the orphan is counted")
    about = f"involvedObject.name={claim},reason=ClaimOrphaned"
    assert kubectl("get", "events", "-n", namespace, "--field-selector", about, "-o", "name")
    assert "deletionTimestamp" not in get("pvc", claim, namespace)["metadata"]
    kubectl("patch", "pvc", claim, "-n", namespace, "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
    eventually(lambda: operator.metric("dporun_orphaned_claims") == 0, seconds=30, what="nor for ever")
