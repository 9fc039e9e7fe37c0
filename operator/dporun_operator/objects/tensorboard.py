"""TensorBoard: a sidecar of the training pods, a small Deployment after them, and one Service before both."""

from dporun_api import run_folder
from dporun_api.pod import RESULTS_MOUNT, TENSORBOARD_PORT, tensorboard_command
from dporun_operator import names
from dporun_operator.names import Component
from dporun_operator.objects import pod
from dporun_operator.objects.metadata import metadata
from dporun_operator.run import Manifest, Run
from dporun_operator.settings import Settings


def sidecar(run: Run, settings: Settings) -> Manifest:
    """TensorBoard beside the training: a native sidecar, so the Job is complete when training is.

    It has no startup probe, for which training would wait.
    """
    return {**_container(run, settings), "restartPolicy": "Always"}


def tensorboard_deployment(run: Run, settings: Settings) -> Manifest:
    """TensorBoard after the training."""
    spec = {"containers": [_container(run, settings)]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(run, names.tensorboard(run.name), Component.TENSORBOARD),
        "spec": {
            "replicas": 1,
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": {names.RUN_UID: run.uid, names.COMPONENT: Component.TENSORBOARD.value}},
            "template": pod.template(
                run, settings, Component.TENSORBOARD, spec, read_only_results=True, serves_tensorboard=True
            ),
        },
    }


def tensorboard_service(run: Run) -> Manifest:
    """One name for TensorBoard: it leads to the training pods while they run, then to the Deployment."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(run, names.tensorboard(run.name), Component.TENSORBOARD),
        "spec": {
            "type": "ClusterIP",
            "selector": {names.RUN_UID: run.uid, names.SERVES_TENSORBOARD: "true"},
            "ports": [{"name": "http", "port": TENSORBOARD_PORT, "targetPort": TENSORBOARD_PORT}],
        },
    }


def port_forward(run: Run) -> str:
    """Command that makes TensorBoard reachable at http://localhost:6006."""
    ports = f"{TENSORBOARD_PORT}:{TENSORBOARD_PORT}"
    return f"kubectl -n {run.namespace} port-forward service/{names.tensorboard(run.name)} {ports}"


def _container(run: Run, settings: Settings) -> Manifest:
    page = {"httpGet": {"path": "/", "port": TENSORBOARD_PORT}, "timeoutSeconds": 5}
    fragment = {
        "name": names.TENSORBOARD_CONTAINER,
        "command": tensorboard_command(RESULTS_MOUNT / run.directory / run_folder.RUNS),
        "resources": settings.tensorboard_resources,
        "ports": [{"name": "tensorboard", "containerPort": TENSORBOARD_PORT}],
        "readinessProbe": {**page, "periodSeconds": 5},
        "livenessProbe": {**page, "initialDelaySeconds": 60, "periodSeconds": 30, "failureThreshold": 5},
    }
    return pod.container(run, settings, fragment, read_only_results=True)
