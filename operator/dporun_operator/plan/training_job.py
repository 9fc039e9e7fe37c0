"""The Indexed Job of one training attempt, and the headless Service through which its pods find each other.

One attempt is one Job: a lost pod of several ends the attempt (the processes cannot go on without it), and the next
attempt resumes from the newest complete checkpoint. So the Job itself never retries, and the rules of its
podFailurePolicy only make its condition say why it failed, which outlives the pods.
"""

from collections.abc import Mapping

from dporun_api.pod import MAIN_ADDRESS_VARIABLE, PROGRAM, RENDEZVOUS_PORT, STATUS_PORT, Command, ExitCode, arguments
from dporun_operator import names
from dporun_operator.names import Component
from dporun_operator.plan import pods, tensorboard
from dporun_operator.plan.run import Manifest, Run
from dporun_operator.settings import Requirements, Settings

TOLD_EXIT_CODES = [code.value for code in ExitCode if code >= ExitCode.CONFIG_INVALID]


def training_job(run: Run, settings: Settings, attempt: int) -> Manifest:
    """Build the Job of ``attempt``, counted from 1."""
    spec = run.spec
    shared_memory = {"medium": "Memory", "sizeLimit": spec.resources.shm_size}
    environment = {}
    if spec.distributed.nodes > 1:
        environment[MAIN_ADDRESS_VARIABLE] = main_address(run, attempt)
    template = pods.template(
        run,
        settings,
        component=Component.TRAIN,
        attempt=attempt,
        containers=[
            pods.container(
                run,
                settings,
                name=names.MAIN_CONTAINER,
                command=[PROGRAM, *arguments(Command.TRAIN)],
                resources=_resources(run, settings),
                environment=environment,
                mounts=[pods.config_mount(), {"name": pods.SHARED_MEMORY_VOLUME, "mountPath": "/dev/shm"}],  # noqa: S108
                ports=[{"name": "status", "containerPort": STATUS_PORT}],
            )
        ],
        sidecars=[tensorboard.sidecar(run, settings)] if spec.tensorboard.enabled else [],
        volumes=[pods.config_volume(run), {"name": pods.SHARED_MEMORY_VOLUME, "emptyDir": shared_memory}],
        restartPolicy="Never",
        subdomain=names.train_service(run.name),
        terminationGracePeriodSeconds=spec.run_policy.grace_period_seconds,
        priority_class=spec.resources.priority_class_name,
    )
    job_metadata = pods.metadata(run, names.train_job(run.name, attempt), Component.TRAIN, attempt=attempt)
    if spec.scheduling.queue_name:
        job_metadata["labels"][names.KUEUE_QUEUE] = spec.scheduling.queue_name
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": job_metadata,
        "spec": {
            "completionMode": "Indexed",
            "completions": spec.distributed.nodes,
            "parallelism": spec.distributed.nodes,
            "backoffLimit": 0,
            "podFailurePolicy": {
                "rules": [
                    {
                        "action": "FailJob",
                        "onExitCodes": {
                            "containerName": names.MAIN_CONTAINER,
                            "operator": "In",
                            "values": TOLD_EXIT_CODES,
                        },
                    },
                    {"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                ]
            },
            "template": template,
        },
    }


def training_service(run: Run) -> Manifest:
    """Build the headless Service; it names pods before they are ready, as they meet before that."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": pods.metadata(run, names.train_service(run.name), Component.TRAIN),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {names.RUN_UID: run.uid, names.COMPONENT: Component.TRAIN.value},
            "ports": [
                {"name": "rendezvous", "port": RENDEZVOUS_PORT, "targetPort": RENDEZVOUS_PORT},
                {"name": "status", "port": STATUS_PORT, "targetPort": STATUS_PORT},
            ],
        },
    }


def main_address(run: Run, attempt: int) -> str:
    """DNS name of the first pod of an attempt."""
    return f"{names.train_job(run.name, attempt)}-0.{names.train_service(run.name)}.{run.namespace}.svc"


def _resources(run: Run, settings: Settings) -> Requirements:
    asked, default = run.spec.resources, settings.train_resources
    requests = dict(asked.requests if asked.requests is not None else _without(default.get("requests"), asked.limits))
    limits = dict(asked.limits if asked.limits is not None else _without(default.get("limits"), asked.requests))
    if asked.gpus_per_node:
        requests[asked.gpu_resource_name] = limits[asked.gpu_resource_name] = str(asked.gpus_per_node)
    return {kind: amounts for kind, amounts in (("requests", requests), ("limits", limits)) if amounts}


def _without(default: Mapping[str, str] | None, asked: Mapping[str, str] | None) -> dict[str, str]:
    """Defaults of what the run says nothing about: a default request above the run's own limit would be refused."""
    return {name: amount for name, amount in (default or {}).items() if name not in (asked or {})}
