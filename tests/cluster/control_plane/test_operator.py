"""The operator as a process against a real API server: objects, status, deletion, restarts."""

import json
from collections.abc import Callable

import pytest

from dporun_api.v1alpha1.status import ConditionType
from dporun_testing import playing_kubelet as kubelet
from dporun_testing.kubectl import apply, eventually, exists, get, kubectl, wait_condition
from dporun_testing.operator_process import ERRORS, OperatorProcess, without_right_on
from dporun_testing.played_run import (
    ARCHIVED,
    DENIED,
    PREPARED,
    TRAINED,
    delete,
    finish,
    manifest,
    status,
    train,
    wait_gone,
    wait_phase,
)

pytestmark = pytest.mark.cluster


def wait_for_errors(operator: OperatorProcess, count: int = 2) -> None:
    before = operator.metric(ERRORS)
    eventually(lambda: operator.metric(ERRORS) >= before + count, seconds=60, what=f"{count} errors")


def test_training_does_not_begin_before_that_is_written(operator: OperatorProcess, namespace: str) -> None:
    """Of a Job that comes and goes while the operator is away, the status is the only trace."""
    apply(manifest(tensorboard={"enabled": False}), namespace)
    kubelet.pod_of(namespace, "demo-prepare")
    wait_phase(namespace, "Preparing")
    with without_right_on("dporuns/status"):
        kubelet.end(namespace, "demo-prepare", PREPARED)
        wait_for_errors(operator)
        assert not exists("job", "demo-train-1", namespace)
        operator.kill()
    operator.start()
    kubelet.run(namespace, "demo-train-1")
    assert status(namespace)["attempt"] == 1
    kubelet.end(namespace, "demo-train-1", TRAINED)
    kubelet.end(namespace, "demo-archive-1", ARCHIVED)
    wait_condition("demo", "Archived", namespace, seconds=30)


def test_nothing_is_deleted_before_its_status_is_written(operator: OperatorProcess, namespace: str) -> None:
    pod = train(namespace)
    claim = f"demo-results-{get('dporun', 'demo', namespace)['metadata']['uid'][:8]}"
    delete(namespace)
    eventually(lambda: "deletionTimestamp" in get("pod", pod, namespace)["metadata"], seconds=30, what="the pod stops")
    kubelet.bury(namespace, pod)
    kubelet.pod_of(namespace, "demo-archive-1")
    with without_right_on("dporuns/status"):
        kubelet.end(namespace, "demo-archive-1", ARCHIVED)
        wait_for_errors(operator)
        for kind, name in (("pvc", claim), ("configmap", "demo-config"), ("job", "demo-archive-1")):
            assert "deletionTimestamp" not in get(kind, name, namespace)["metadata"]
    wait_gone("dporun", "demo", namespace)
    wait_gone("pvc", claim, namespace)


def test_a_deleted_claim_stays_until_the_archive_is_done(operator: OperatorProcess, namespace: str) -> None:
    pod = train(namespace)
    claim = f"demo-results-{get('dporun', 'demo', namespace)['metadata']['uid'][:8]}"
    kubectl("delete", "pvc", claim, "-n", namespace, "--wait=false")
    assert "dporun.io/results" in get("pvc", claim, namespace)["metadata"]["finalizers"]
    delete(namespace)
    eventually(lambda: "deletionTimestamp" in get("pod", pod, namespace)["metadata"], seconds=30, what="the pod stops")
    kubelet.bury(namespace, pod)
    kubelet.pod_of(namespace, "demo-archive-1")
    assert exists("pvc", claim, namespace)
    kubelet.end(namespace, "demo-archive-1", ARCHIVED)
    wait_gone("dporun", "demo", namespace)
    wait_gone("pvc", claim, namespace)
    assert operator.metric('dporun_operator_reconciliations_total{result="ok"}') > 0


def test_a_kept_claim_that_was_deleted_keeps_its_data(operator: OperatorProcess, namespace: str) -> None:
    pod = train(namespace)
    claim = f"demo-results-{get('dporun', 'demo', namespace)['metadata']['uid'][:8]}"
    kubectl("delete", "pvc", claim, "-n", namespace, "--wait=false")
    retain = json.dumps({"spec": {"deletionPolicy": "Retain"}})
    kubectl("patch", "dporun", "demo", "-n", namespace, "--type=merge", "-p", retain)
    delete(namespace)
    eventually(lambda: "deletionTimestamp" in get("pod", pod, namespace)["metadata"], seconds=30, what="the pod stops")
    kubelet.bury(namespace, pod)
    wait_gone("dporun", "demo", namespace)
    assert "dporun.io/results" in get("pvc", claim, namespace)["metadata"]["finalizers"]
    assert operator.metric('dporun_operator_reconciliations_total{result="ok"}') > 0
    kubectl("patch", "pvc", claim, "-n", namespace, "--type=merge", "-p", '{"metadata":{"finalizers":null}}')


def test_a_deletion_outlives_the_death_of_the_operator(operator: OperatorProcess, namespace: str) -> None:
    pod = train(namespace)
    delete(namespace)
    eventually(
        lambda: "deletionTimestamp" in get("pod", pod, namespace)["metadata"], seconds=30, what="the pod is stopped"
    )
    operator.kill()
    kubelet.bury(namespace, pod)
    assert exists("dporun", "demo", namespace)
    operator.start()
    kubelet.pod_of(namespace, "demo-archive-1")
    operator.kill()
    kubelet.end(namespace, "demo-archive-1", ARCHIVED)
    ended = get("job", "demo-archive-1", namespace)
    assert "ownerReferences" not in ended["metadata"]
    assert exists("dporun", "demo", namespace)
    operator.start()
    wait_gone("dporun", "demo", namespace)
    wait_gone("job", "demo-archive-1", namespace)


def test_foreground_deletion_spares_what_the_archive_needs(operator: OperatorProcess, namespace: str) -> None:
    pod = train(namespace)
    claim = f"demo-results-{get('dporun', 'demo', namespace)['metadata']['uid'][:8]}"
    delete(namespace, cascade="foreground")
    eventually(
        lambda: "deletionTimestamp" in get("pod", pod, namespace)["metadata"], seconds=30, what="the pod is stopped"
    )
    kubelet.bury(namespace, pod)
    kubelet.pod_of(namespace, "demo-archive-1")
    assert "deletionTimestamp" not in get("pvc", claim, namespace)["metadata"]
    assert exists("configmap", "demo-config", namespace)
    kubelet.end(namespace, "demo-archive-1", ARCHIVED)
    wait_gone("dporun", "demo", namespace)
    assert operator.metric('dporun_operator_reconciliations_total{result="ok"}') > 0


def test_an_archive_that_fails_holds_the_deleted_run(operator: OperatorProcess, namespace: str) -> None:
    pod = train(namespace)
    delete(namespace)
    eventually(
        lambda: "deletionTimestamp" in get("pod", pod, namespace)["metadata"], seconds=30, what="the pod is stopped"
    )
    kubelet.bury(namespace, pod)
    kubelet.end(namespace, "demo-archive-1", DENIED, exit_code=74)
    eventually(lambda: "403 AccessDenied" in status(namespace)["message"], seconds=30, what="the failure is told")
    kubelet.pod_of(namespace, "demo-archive-2")
    assert status(namespace)["archive"]["attempts"] == 2
    kubelet.end(namespace, "demo-archive-2", ARCHIVED)
    wait_gone("dporun", "demo", namespace)
    assert operator.metric('dporun_operator_reconciliations_total{result="ok"}') > 0


@pytest.mark.usefixtures("operator")
def test_archiving_that_gave_up_begins_again_when_asked(namespace: str) -> None:
    train(namespace, archive={"uri": "s3://bucket/runs", "retryForSeconds": 0})
    kubelet.end(namespace, "demo-train-1", TRAINED)
    kubelet.end(namespace, "demo-archive-1", DENIED, exit_code=74)
    wait_phase(namespace, "Failed")
    kubectl("annotate", "dporun", "demo", "-n", namespace, "dporun.io/retry=archive")
    wait_phase(namespace, "Archiving")
    kubelet.end(namespace, "demo-archive-2", ARCHIVED)
    wait_phase(namespace, "Succeeded")
    assert "dporun.io/retry" not in get("dporun", "demo", namespace)["metadata"].get("annotations", {})


@pytest.mark.usefixtures("operator")
def test_a_run_created_again_under_its_old_name_starts_afresh(namespace: str) -> None:
    finish(namespace)
    first = get("dporun", "demo", namespace)["metadata"]["uid"]
    delete(namespace)
    kubelet.end(namespace, "demo-archive-2", ARCHIVED)
    wait_gone("dporun", "demo", namespace)
    apply(manifest(), namespace)
    eventually(
        lambda: status(namespace).get("phase") == "Preparing" and kubelet.pods(namespace, "demo-prepare"),
        seconds=60,
        what="the new run is prepared",
    )
    run = get("dporun", "demo", namespace)
    assert run["metadata"]["uid"] != first
    assert "archive" not in run["status"]
    assert exists("pvc", f"demo-results-{run['metadata']['uid'][:8]}", namespace)


def forbid(namespace: str, resource: str) -> None:
    """Let a quota refuse them all."""
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "strict"},
        "spec": {"hard": {resource: "0"}},
    }
    apply(quota, namespace)
    eventually(lambda: get("quota", "strict", namespace).get("status", {}).get("hard"), seconds=30, what="the quota")


@pytest.mark.usefixtures("operator")
@pytest.mark.parametrize("refused", ["count/jobs.batch", "pods"])
def test_what_a_quota_refuses_is_told_and_tried_again(namespace: str, refused: str) -> None:
    """Jobs are refused to the operator, pods to the Job controller, whose Events tell."""
    forbid(namespace, refused)
    apply(manifest(), namespace)
    eventually(lambda: "exceeded quota" in status(namespace).get("message", ""), seconds=30, what="the refusal is told")
    told = {c["type"]: c for c in status(namespace)["conditions"]}
    assert len(told) == len(ConditionType)
    assert (told["Scheduled"]["status"], told["Scheduled"]["reason"]) == ("False", "Refused")
    kubectl("delete", "quota", "strict", "-n", namespace)
    kubelet.pod_of(namespace, "demo-prepare")
    eventually(lambda: "quota" not in status(namespace)["message"], seconds=30, what="the refusal is forgotten")


@pytest.mark.usefixtures("operator")
def test_a_refused_tensorboard_does_not_hold_up_training(namespace: str) -> None:
    forbid(namespace, "services")
    train(namespace)
    wait_condition("demo", "Running", namespace, seconds=30)
    refused = {c["type"]: c for c in status(namespace)["conditions"]}["TensorBoardReady"]
    assert (refused["status"], refused["reason"]) == ("False", "Refused")
    assert "Service demo-tensorboard" in refused["message"]
    assert "exceeded quota" in refused["message"]


@pytest.mark.usefixtures("operator")
def test_objects_of_others_are_neither_taken_over_nor_deleted(namespace: str) -> None:
    theirs = {"metadata": {"name": "demo-config"}, "apiVersion": "v1", "kind": "ConfigMap", "data": {"mine": "yes"}}
    apply(theirs, namespace)
    kubectl("create", "deployment", "demo-tensorboard", "--image=example", "--replicas=0", "-n", namespace)
    apply(manifest(), namespace)
    eventually(
        lambda: "ConfigMap demo-config exists already" in status(namespace).get("message", ""),
        seconds=30,
        what="the name that is taken is told",
    )
    assert get("configmap", "demo-config", namespace)["data"] == {"mine": "yes"}
    delete(namespace)
    wait_gone("dporun", "demo", namespace)
    assert exists("configmap", "demo-config", namespace)
    assert exists("deployment", "demo-tensorboard", namespace)


def test_a_volume_that_was_enlarged_stays_as_large(
    start_operator: Callable[..., OperatorProcess], namespace: str
) -> None:
    growing = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": f"growing-{namespace}"},
        "provisioner": "dporun.io/none",
        "allowVolumeExpansion": True,
    }
    apply(growing, namespace)
    first = start_operator(DPORUN_NAMESPACES=namespace)
    apply(manifest(storage={"size": "1Gi", "storageClassName": f"growing-{namespace}"}), namespace)
    kubelet.pod_of(namespace, "demo-prepare")
    claim = f"demo-results-{get('dporun', 'demo', namespace)['metadata']['uid'][:8]}"
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"volume-{namespace}"},
        "spec": {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": f"growing-{namespace}",
            "claimRef": {"namespace": namespace, "name": claim},
            "hostPath": {"path": "/nowhere"},
        },
    }
    apply(volume, namespace)
    eventually(
        lambda: get("pvc", claim, namespace)["status"]["phase"] == "Bound", seconds=60, what="the claim is bound"
    )
    larger = {"spec": {"resources": {"requests": {"storage": "2Gi"}}}}
    kubectl("patch", "pvc", claim, "-n", namespace, "-p", json.dumps(larger))
    first.kill()
    start_operator(DPORUN_NAMESPACES=namespace)
    kubelet.end(namespace, "demo-prepare", PREPARED)
    kubelet.pod_of(namespace, "demo-train-1")
    assert get("pvc", claim, namespace)["spec"]["resources"]["requests"]["storage"] == "2Gi"


def test_an_image_that_is_not_allowed_is_refused(
    start_operator: Callable[..., OperatorProcess], namespace: str
) -> None:
    start_operator(DPORUN_NAMESPACES=namespace, DPORUN_IMAGE_ALLOW_LIST="registry.example.com/ml/*")
    apply(manifest("bad", image="evil.example.com/miner:1"), namespace)
    apply(manifest("good", image="registry.example.com/ml/trainer:2"), namespace)
    wait_condition("bad", "Finished", namespace, seconds=30)
    assert status(namespace, "bad")["failure"]["reason"] == "InvalidSpec"
    kubelet.pod_of(namespace, "good-prepare")
    assert not exists("job", "bad-prepare", namespace)
    kubectl("delete", "dporun", "bad", "-n", namespace, "--timeout=30s")


def test_only_the_watched_namespaces_are_touched(
    start_operator: Callable[..., OperatorProcess], namespace: str
) -> None:
    from dporun_testing.kubectl import temporary_namespace

    with temporary_namespace(f"{namespace}-a") as one, temporary_namespace(f"{namespace}-b") as other:
        operator = start_operator(DPORUN_NAMESPACES=f"{namespace},{one}")
        for place in (other, one, namespace):
            apply(manifest(), place)
        kubelet.pod_of(namespace, "demo-prepare")
        kubelet.pod_of(one, "demo-prepare")
        assert "finalizers" not in get("dporun", "demo", other)["metadata"]
        operator.stop()  # the next one would stand by for it
        start_operator()  # cluster-wide
        kubelet.pod_of(other, "demo-prepare")


def test_nothing_is_asked_while_nothing_happens(operator: OperatorProcess, namespace: str) -> None:
    apply(manifest(), namespace)
    kubelet.pod_of(namespace, "demo-prepare")
    wait_phase(namespace, "Preparing")
    asked: list[float] = []

    def quiet() -> bool:
        """Nothing was asked at the last looks, which takes three seconds; the one early resync may fall into others."""
        asked.append(operator.metric("dporun_operator_api_requests_total"))
        return len(asked) > 6 and asked[-1] == asked[-7]

    eventually(quiet, seconds=40, what="the operator is quiet")
    kubelet.end(namespace, "demo-prepare", PREPARED)
    kubelet.pod_of(namespace, "demo-train-1")


@pytest.mark.usefixtures("operator")
def test_a_run_starts_once_the_one_that_it_names_is_archived(namespace: str) -> None:
    """The other one wakes it: the resync is ten minutes away."""
    apply(manifest("second", checkpoints={"resumeFrom": {"run": "first"}}), namespace)
    eventually(lambda: "there is none" in status(namespace, "second").get("message", ""), seconds=30, what="the wait")
    finish(namespace, "first")
    kubelet.pod_of(namespace, "second-prepare")
    config = json.loads(get("configmap", "second-config", namespace)["data"]["run.json"])
    assert config["checkpoints"]["resumeFrom"] == status(namespace, "first")["archive"]["uri"]
