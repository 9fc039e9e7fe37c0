"""Plays scheduler and kubelet on a control plane without nodes: gives pods a node, a status, an end."""

import json
from typing import Any

from dporun_api.pod import ExitCode
from dporun_api.results import Outcome, OutcomeState
from dporun_testing.kubectl import eventually, get, kubectl

NODE = "played"
ADDRESS = "127.0.0.9"
"""Of every pod: a loopback address, so that a test may serve a pod's status port."""


def pods(namespace: str, job: str) -> list[str]:
    """Names of the pods of a Job that are not being deleted."""
    selector = f"batch.kubernetes.io/job-name={job}"
    items = json.loads(kubectl("get", "pods", "-n", namespace, "-l", selector, "-o", "json"))["items"]
    return [item["metadata"]["name"] for item in items if "deletionTimestamp" not in item["metadata"]]


def pod_of(namespace: str, job: str) -> str:
    """The pod of a Job, once it is there."""
    return eventually(lambda: pods(namespace, job), seconds=30, what=f"Job {job} has a pod")[0]


def schedule(namespace: str, pod: str) -> None:
    """Bind a pod to the node; from then on its deletion waits for the kubelet."""
    binding = {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": pod, "namespace": namespace},
        "target": {"apiVersion": "v1", "kind": "Node", "name": NODE},
    }
    kubectl(
        "create", "--raw", f"/api/v1/namespaces/{namespace}/pods/{pod}/binding", "-f", "-", stdin=json.dumps(binding)
    )


def run(namespace: str, job: str) -> str:
    """Let the pod of a Job run; returns its name."""
    pod = pod_of(namespace, job)
    _run(namespace, pod)
    return pod


def find_no_node(namespace: str, job: str, why: str) -> None:
    """Leave the pod of a Job without a node, with the scheduler's words."""
    waits = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": why}
    _status(namespace, pod_of(namespace, job), {"conditions": [waits]})


def run_tensorboard(namespace: str, run_name: str) -> str:
    """Let the pod of a finished run's TensorBoard run; returns its name."""
    selector = f"dporun.io/run={run_name},app.kubernetes.io/component=tensorboard"
    question = ("get", "pods", "-n", namespace, "-l", selector, "-o", "jsonpath={.items[*].metadata.name}")
    pod = eventually(lambda: kubectl(*question), seconds=30, what="TensorBoard has a pod")
    _run(namespace, pod)
    return pod


def _run(namespace: str, pod: str) -> None:
    schedule(namespace, pod)
    started = {"running": {"startedAt": "2026-01-05T10:00:00Z"}}
    spec = get("pod", pod, namespace)["spec"]
    of_kind = {
        kind: [_container(container["name"], started, ready=True) for container in spec.get(kind, ())]
        for kind in ("containers", "initContainers")
    }
    _status(
        namespace,
        pod,
        {
            "phase": "Running",
            "podIP": ADDRESS,
            "podIPs": [{"ip": ADDRESS}],
            "containerStatuses": of_kind["containers"],
            "initContainerStatuses": of_kind["initContainers"],
        },
    )


def end(namespace: str, job: str, outcome: Outcome, *, exit_code: int = 0) -> None:
    """Let the pod of a Job end with an outcome as its termination message."""
    _end(namespace, pod_of(namespace, job), outcome, exit_code)


def stop(namespace: str, pod: str) -> None:
    """Let a pod that is being deleted save its checkpoint and stop, and finish its deletion."""
    _end(namespace, pod, Outcome(state=OutcomeState.PREEMPTED), ExitCode.PREEMPTED)
    bury(namespace, pod)


def _end(namespace: str, pod: str, outcome: Outcome, exit_code: int) -> None:
    if not get("pod", pod, namespace)["spec"].get("nodeName"):
        schedule(namespace, pod)
    ended = {
        "exitCode": exit_code,
        "reason": "Error" if exit_code else "Completed",
        "message": outcome.to_json(exclude_none=True),
        "startedAt": "2026-01-05T10:00:00Z",
        "finishedAt": "2026-01-05T10:01:00Z",
    }
    sidecars = [c["name"] for c in get("pod", pod, namespace)["spec"].get("initContainers", ())]
    stopped = {"terminated": {"exitCode": 0, "startedAt": "2026-01-05T10:00:00Z", "finishedAt": "2026-01-05T10:01:00Z"}}
    _status(
        namespace,
        pod,
        {
            "phase": "Failed" if exit_code else "Succeeded",
            "containerStatuses": [_container("trainer", {"terminated": ended}, ready=False)],
            "initContainerStatuses": [_container(name, stopped, ready=False) for name in sidecars],
        },
    )


def bury(namespace: str, pod: str) -> None:
    """Finish the deletion of a pod, as the kubelet does once its containers have ended."""
    kubectl("delete", "pod", pod, "-n", namespace, "--grace-period=0", "--force", "--wait=false", "--ignore-not-found")


def _container(name: str, state: dict[str, Any], *, ready: bool) -> dict[str, Any]:
    return {
        "name": name, "state": state, "ready": ready, "restartCount": 0, "image": "trainer", "imageID": "sha256:0",
        "started": ready,
    }  # fmt: skip


def _status(namespace: str, pod: str, status: dict[str, Any]) -> None:
    patch = json.dumps({"status": status})
    kubectl("patch", "pod", pod, "-n", namespace, "--subresource=status", "--type=merge", "-p", patch)
