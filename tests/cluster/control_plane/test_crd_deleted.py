"""The resource itself is deleted, and given back."""

import pytest

from dporun_testing import playing_kubelet as kubelet
from dporun_testing.kubectl import KubectlError, apply, eventually, exists, get, kubectl
from dporun_testing.operator_process import OperatorProcess
from dporun_testing.paths import CRD
from dporun_testing.played_run import (
    ARCHIVED,
    PREPARED,
    finish,
    manifest,
    status,
    train,
    wait_gone,
)

pytestmark = pytest.mark.cluster


def test_a_deleted_crd_waits_until_every_run_is_archived(operator: OperatorProcess, namespace: str) -> None:
    finish(namespace, "done")
    pod = train(namespace, "training")
    kubectl("delete", "crd", "dporuns.dporun.io", "--wait=false")
    kubelet.end(namespace, "done-archive-2", ARCHIVED)
    wait_gone("dporun", "done", namespace)
    eventually(lambda: "deletionTimestamp" in get("pod", pod, namespace)["metadata"], seconds=30, what="the pod stops")
    kubelet.stop(namespace, pod)
    kubelet.pod_of(namespace, "training-archive-1")
    assert exists("crd", "dporuns.dporun.io", "")
    kubelet.end(namespace, "training-archive-1", ARCHIVED)
    eventually(lambda: not exists("crd", "dporuns.dporun.io", ""), seconds=120, what="the CRD goes")
    kubectl("apply", "--server-side", "-f", str(CRD))
    eventually(lambda: applied(namespace), seconds=60, what="the resource is served again")
    operator.stop()  # it ends by itself when the resource is gone, and the kubelet starts it again
    operator.start()
    kubelet.end(namespace, "demo-prepare", PREPARED)
    kubelet.pod_of(namespace, "demo-train-1")
    assert status(namespace)["attempt"] == 1


def applied(namespace: str) -> bool:
    """Apply a run; whether there is such a resource."""
    try:
        apply(manifest(), namespace)
    except KubectlError:
        return False
    return True
