"""Runs, Jobs and Pods as the API server would hand them out, in few words."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from dporun_operator.run import Run
from dporun_operator.settings import Settings

UID = "0a1b2c3d-1111-2222-3333-444455556666"
NOW = datetime(2026, 1, 5, 10, 0, tzinfo=UTC)
IMAGE = "registry.example.com/dporun/trainer:1.0"
SETTINGS = Settings(trainer_image=IMAGE)

Body = dict[str, Any]


def stamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def merge(base: Mapping[str, Any], change: Mapping[str, Any]) -> Body:
    """``base`` with ``change`` merged in; null removes."""
    merged = dict(base)
    for key, value in change.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = merge(merged[key], value)
        else:
            merged[key] = value
    return merged


def version(body: Mapping[str, Any], number: int, **metadata: Any) -> Body:
    """``body`` at another resource version."""
    return {**body, "metadata": {**body["metadata"], "resourceVersion": str(number), **metadata}}


def run_body(
    spec: Mapping[str, Any] | None = None,
    *,
    name: str = "demo",
    namespace: str = "team-a",
    status: Mapping[str, Any] | None = None,
    deleting: bool = False,
    deleted_at: datetime = NOW,
    **metadata: Any,
) -> Body:
    """A DPORun with the least that the API demands, and ``spec`` merged in."""
    least = {"model": {"uri": "hf://acme/tiny"}, "dataset": {"train": "s3://bucket/train.jsonl"}}
    return {
        "apiVersion": "dporun.io/v1alpha1",
        "kind": "DPORun",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": UID,
            "generation": 1,
            "resourceVersion": "100",
            "finalizers": ["dporun.io/archive"],
            "creationTimestamp": stamp(NOW),
            **({"deletionTimestamp": stamp(deleted_at)} if deleting else {}),
            **metadata,
        },
        "spec": merge(least, spec or {}),
        "status": dict(status or {}),
    }


def a_run(spec: Mapping[str, Any] | None = None, **other: Any) -> Run:
    """The same, parsed."""
    return Run.parse(run_body(spec, **other))


def _labels(component: str, attempt: int, index: int | None = None) -> dict[str, str]:
    return {
        "dporun.io/run-uid": UID,
        "app.kubernetes.io/component": component,
        "dporun.io/attempt": str(attempt),
        **({} if index is None else {"batch.kubernetes.io/job-completion-index": str(index)}),
    }


def _owner(kind: str, name: str, uid: str) -> Body:
    return {"kind": kind, "name": name, "uid": uid, "controller": True}


def job_name(component: str, attempt: int) -> str:
    return "demo-prepare" if (component, attempt) == ("prepare", 1) else f"demo-{component}-{attempt}"


def job(
    component: str,
    attempt: int = 1,
    state: str = "active",
    *,
    at: datetime = NOW,
    age: float = 3600,
    ago: float = 60,
    queued: float | None = None,
    message: str = "",
    parallelism: int = 1,
    job_uid: str | None = None,
) -> Body:
    """A Job of ``age`` seconds: active, suspended, complete or failed since ``ago`` seconds, forgotten or doomed.

    The pod of one that is forgotten has failed, without a word of the Job controller about it; that of one that is
    doomed has failed when the Job was suspended.

    A queue has stopped or started it ``queued`` seconds ago.
    """
    ended = stamp(at - timedelta(seconds=ago))
    conditions = {
        "complete": [{"type": "Complete", "status": "True", "lastTransitionTime": ended}],
        "failed": [{"type": "Failed", "status": "True", "lastTransitionTime": ended, "message": message}],
        "doomed": [{"type": "FailureTarget", "status": "True", "lastTransitionTime": ended}],
    }.get(state, [])
    suspended = state in {"suspended", "doomed"}
    if queued is not None:
        stopped, moment = "True" if suspended else "False", stamp(at - timedelta(seconds=queued))
        conditions.append({"type": "Suspended", "status": stopped, "lastTransitionTime": moment})
    return {
        "kind": "Job",
        "metadata": {
            "name": job_name(component, attempt),
            "namespace": "team-a",
            "uid": job_uid or f"job-{component}-{attempt}",
            "resourceVersion": "1",
            "creationTimestamp": stamp(at - timedelta(seconds=age)),
            "labels": _labels(component, attempt),
            **({} if component == "archive" else {"ownerReferences": [_owner("DPORun", "demo", UID)]}),
        },
        "spec": {"suspend": suspended, "parallelism": parallelism},
        "status": {"conditions": conditions, **({"failed": 1} if state in {"forgotten", "failed"} else {})},
    }


def pod(
    component: str,
    attempt: int = 1,
    state: str = "running",
    *,
    at: datetime = NOW,
    age: float = 120,
    stops_in: float | None = None,
    index: int = 0,
    exit_code: int | None = None,
    reason: str | None = None,
    message: str | None = None,
    disruption: str | None = None,
    pod_reason: str | None = None,
    pod_message: str | None = None,
    tensorboard: bool = False,
    job_uid: str | None = None,
) -> Body:
    """A Pod: unschedulable, waiting (for ``reason``), running, succeeded or failed (with a termination message)."""
    born = stamp(at - timedelta(seconds=age))
    container: Body = {"name": "tensorboard" if component == "tensorboard" else "trainer", "ready": state == "running"}
    conditions: list[Body] = [{"type": "PodScheduled", "status": "True", "lastTransitionTime": born}]
    phase = {"running": "Running", "succeeded": "Succeeded", "failed": "Failed"}.get(state, "Pending")
    if state == "unschedulable":
        conditions = [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message or "no GPU"}
        ]
        container = {}
    elif state == "waiting":
        container["state"] = {"waiting": {"reason": reason or "ContainerCreating", "message": message}}
    elif state == "running":
        container["state"] = {"running": {"startedAt": born}}
    else:
        code = exit_code if exit_code is not None else int(state == "failed")
        container["state"] = {
            "terminated": {"exitCode": code, "reason": reason or ("Error" if code else "Completed"), "message": message}
        }
    if disruption:
        conditions.append({"type": "DisruptionTarget", "status": "True", "reason": disruption})
    controller = _owner("Job", job_name(component, attempt), job_uid or f"job-{component}-{attempt}")
    if component == "tensorboard":
        controller = _owner("ReplicaSet", "demo-tensorboard-7d9f", "replica-set")
    sidecar = {"name": "tensorboard", "ready": tensorboard, "state": {"running": {"startedAt": born}}}
    return {
        "kind": "Pod",
        "metadata": {
            "name": f"{job_name(component, attempt)}-{index}-abcde",
            "namespace": "team-a",
            "uid": f"pod-{component}-{attempt}-{index}",
            "resourceVersion": "1",
            "creationTimestamp": born,
            **({} if stops_in is None else {"deletionTimestamp": stamp(at + timedelta(seconds=stops_in))}),
            "labels": _labels(component, attempt, index),
            "ownerReferences": [controller],
        },
        "status": {
            "phase": phase,
            "podIP": "10.0.0.7",
            "conditions": conditions,
            "containerStatuses": [container] if container else [],
            **({"initContainerStatuses": [sidecar]} if component == "train" and state == "running" else {}),
            **({"reason": pod_reason} if pod_reason else {}),
            **({"message": pod_message} if pod_message else {}),
        },
    }
