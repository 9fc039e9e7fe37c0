"""What all Jobs of a run share."""

from collections.abc import Iterable

from dporun_api.pod import ExitCode
from dporun_operator import names
from dporun_operator.names import Component
from dporun_operator.objects.metadata import metadata
from dporun_operator.run import Manifest, Run


def job(
    run: Run,
    name: str,
    component: Component,
    spec: Manifest,
    *,
    attempt: int = 1,
    owned: bool = True,
    queue: str | None = None,
) -> Manifest:
    """A Job of the run.

    Args:
        run: the run.
        name: of the Job.
        component: what it does for the run.
        spec: of the Job.
        attempt: how often the same has been tried, from 1.
        owned: whether the Job goes with the run.
        queue: Kueue LocalQueue in which it waits.

    """
    head = metadata(run, name, component, attempt=attempt, owned=owned)
    queued = {names.KUEUE_QUEUE: queue} if queue else {}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {**head, "labels": {**head["labels"], **queued}},
        "spec": spec,
    }


def fail_on(codes: Iterable[ExitCode]) -> Manifest:
    """A rule of a podFailurePolicy: one of these exit codes of the trainer fails the Job at once."""
    values = [code.value for code in codes]
    return {
        "action": "FailJob",
        "onExitCodes": {"containerName": names.MAIN_CONTAINER, "operator": "In", "values": values},
    }


def on_disruption(action: str) -> Manifest:
    """A rule of a podFailurePolicy for pods that Kubernetes itself ended."""
    return {"action": action, "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
