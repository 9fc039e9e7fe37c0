"""TensorBoard: a sidecar of the training pods, a small Deployment after them, and one Service before both."""

from typing import Any

from dporun_api import run_folder as layout
from dporun_api.pod import RESULTS_MOUNT, TENSORBOARD_PORT, tensorboard_command
from dporun_operator import names
from dporun_operator.names import Component
from dporun_operator.plan import pods
from dporun_operator.plan.run import Manifest, Run
from dporun_operator.settings import Settings


def sidecar(run: Run, settings: Settings) -> Manifest:
    """TensorBoard beside the training: a native sidecar, so the Job is complete when training is.

    It has no startup probe, for which training would wait.
    """
    return _container(run, settings, restartPolicy="Always")


def deployment(run: Run, settings: Settings) -> Manifest:
    """TensorBoard after the training."""
    template = pods.template(
        run,
        settings,
        component=Component.TENSORBOARD,
        attempt=None,
        containers=[_container(run, settings)],
        read_only_results=True,
    )
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": pods.metadata(run, names.tensorboard(run.name), Component.TENSORBOARD),
        "spec": {
            "replicas": 1,
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": {names.RUN_UID: run.uid, names.COMPONENT: Component.TENSORBOARD.value}},
            "template": template,
        },
    }


def service(run: Run, *, finished: bool) -> Manifest:
    """Reach TensorBoard under one name: of the first training pod, or of the Deployment when ``finished``."""
    training = {names.COMPONENT: Component.TRAIN.value, names.COMPLETION_INDEX: "0"}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": pods.metadata(run, names.tensorboard(run.name), Component.TENSORBOARD),
        "spec": {
            "type": "ClusterIP",
            "selector": {
                names.RUN_UID: run.uid,
                **({names.COMPONENT: Component.TENSORBOARD.value} if finished else training),
            },
            "ports": [{"name": "http", "port": TENSORBOARD_PORT, "targetPort": TENSORBOARD_PORT}],
        },
    }


def port_forward(run: Run) -> str:
    """Command that makes TensorBoard reachable at http://localhost:6006."""
    port = TENSORBOARD_PORT
    return f"kubectl -n {run.namespace} port-forward service/{names.tensorboard(run.name)} {port}:{port}"


def _container(run: Run, settings: Settings, **other: Any) -> Manifest:
    logs = RESULTS_MOUNT / run.directory / layout.RUNS
    port = TENSORBOARD_PORT
    answers = {"httpGet": {"path": "/", "port": port}, "timeoutSeconds": 5}
    return pods.container(
        run,
        settings,
        name=names.TENSORBOARD_CONTAINER,
        command=tensorboard_command(logs),
        resources=settings.tensorboard_resources,
        read_only_results=True,
        ports=[{"name": "tensorboard", "containerPort": port}],
        readinessProbe={**answers, "periodSeconds": 5},
        livenessProbe={**answers, "initialDelaySeconds": 60, "periodSeconds": 30, "failureThreshold": 5},
        **other,
    )
