"""The Indexed Job of one training attempt.

One attempt is one Job: a lost pod of several ends the attempt (the processes cannot go on without it), and the next
attempt resumes from the newest complete checkpoint. So the Job itself never retries, and the rules of its
podFailurePolicy only make its condition say why it failed, which outlives the pods.
"""

import math
from collections.abc import Mapping

from dporun_api.memory import GIB, MemoryEstimate
from dporun_api.pod import (
    CPU_REQUEST_VARIABLE,
    MAIN_ADDRESS_VARIABLE,
    NODE_NAME_VARIABLE,
    PROGRAM,
    STATUS_PORT,
    UPLOADED_STEP_VARIABLE,
    Command,
    ExitCode,
    SecretPrefix,
    arguments,
)
from dporun_api.v1alpha1.formats import amount
from dporun_operator import names
from dporun_operator.names import Component
from dporun_operator.objects import pod, tensorboard
from dporun_operator.objects.job import fail_on, job, on_disruption
from dporun_operator.run import Manifest, Run
from dporun_operator.settings import Requirements, Settings

_SHARED_MEMORY_VOLUME = "shm"
_EXPLAINED = tuple(code for code in ExitCode if code not in {ExitCode.OK, ExitCode.ERROR})


def train_job(
    run: Run,
    settings: Settings,
    attempt: int,
    *,
    uploaded: int | None = None,
    memory: MemoryEstimate | None = None,
) -> Manifest:
    """Build the Job of ``attempt``, counted from 1.

    Args:
        run: the run.
        settings: the operator's.
        attempt: which one.
        uploaded: step of the newest checkpoint that is known to be in the archive.
        memory: that training needs, where prepare has said so.

    """
    spec = run.spec
    nodes, uploads = spec.distributed.nodes, spec.uploads_checkpoints
    shared_memory = {"medium": "Memory", "sizeLimit": spec.resources.shm_size}
    container = pod.container(
        run,
        settings,
        {
            "name": names.MAIN_CONTAINER,
            "command": [PROGRAM, *arguments(Command.TRAIN)],
            "resources": _with_gpus(run, training_resources(run, settings, memory)),
            "ports": [{"name": "status", "containerPort": STATUS_PORT}],
        },
        environment={
            **settings.train_environment,
            **_cpu_request(run),
            **({MAIN_ADDRESS_VARIABLE: main_address(run, attempt)} if nodes > 1 else {}),
            **({UPLOADED_STEP_VARIABLE: str(uploaded)} if uploaded is not None else {}),
        },
        fields={NODE_NAME_VARIABLE: "spec.nodeName"},
        # For the process that uploads checkpoints; that there is no such Secret must not keep training from starting.
        optional_secrets={SecretPrefix.ARCHIVE: spec.archive.secret_ref} if spec.archive and uploads else {},
        mounts=[pod.config_mount(), {"name": _SHARED_MEMORY_VOLUME, "mountPath": "/dev/shm"}],  # noqa: S108
    )
    template = pod.template(
        run,
        settings,
        Component.TRAIN,
        {
            "initContainers": [tensorboard.sidecar(run, settings)] if spec.tensorboard.enabled else [],
            "containers": [container],
            "restartPolicy": "Never",
            "subdomain": names.train_service(run.name) if nodes > 1 else None,
            "terminationGracePeriodSeconds": spec.run_policy.grace_period_seconds,
            "priorityClassName": spec.resources.priority_class_name,
            "volumes": [pod.config_volume(run), {"name": _SHARED_MEMORY_VOLUME, "emptyDir": shared_memory}],
        },
        attempt=attempt,
        serves_tensorboard=spec.tensorboard.enabled,
    )
    job_spec = {
        "completionMode": "Indexed",
        "completions": nodes,
        "parallelism": nodes,
        "backoffLimit": 0,
        "podFailurePolicy": {"rules": [fail_on(_EXPLAINED), on_disruption("FailJob")]},
        "template": template,
    }
    name, queue = names.train_job(run.name, attempt), spec.scheduling.queue_name
    return job(run, name, Component.TRAIN, job_spec, attempt=attempt, queue=queue)


def main_address(run: Run, attempt: int) -> str:
    """DNS name of the first pod of an attempt."""
    return f"{names.train_job(run.name, attempt)}-0.{names.train_service(run.name)}.{run.namespace}.svc"


def training_resources(run: Run, settings: Settings, memory: MemoryEstimate | None) -> Requirements:
    """What a training container gets besides its GPUs: what the run asks for, and the operator's defaults for the rest.

    Where the run says nothing of memory, the request follows ``memory``. It is never below the default, nor above a
    default limit.
    """
    asked, default = run.spec.resources, settings.train_resources
    requests = dict(asked.requests if asked.requests is not None else _without(default.get("requests"), asked.limits))
    limits = dict(asked.limits if asked.limits is not None else _without(default.get("limits"), asked.requests))
    if memory is not None and "memory" not in {**(asked.requests or {}), **(asked.limits or {})}:
        wanted = [default.get("requests", {}).get("memory"), f"{math.ceil(memory.host / GIB)}Gi"]
        request = max(filter(None, wanted), key=amount)
        requests["memory"] = min(request, limits.get("memory", request), key=amount)
    return {"requests": requests, "limits": limits}


def _with_gpus(run: Run, resources: Requirements) -> Requirements:
    asked = run.spec.resources
    gpus = {asked.gpu_resource_name: str(asked.gpus_per_node)} if asked.gpus_per_node else {}
    return {kind: both for kind, amounts in resources.items() if (both := {**amounts, **gpus})}


def _cpu_request(run: Run) -> dict[str, str]:
    """What the run says itself: our default is what a pod of any size needs to start, and no wish for few threads."""
    asked = (run.spec.resources.requests or {}).get("cpu")
    return {CPU_REQUEST_VARIABLE: str(math.ceil(amount(asked)))} if asked else {}


def _without(default: Mapping[str, str] | None, asked: Mapping[str, str] | None) -> dict[str, str]:
    """Defaults for what the run leaves open: a default request above the run's own limit would be refused."""
    return {name: amount for name, amount in (default or {}).items() if name not in (asked or {})}
