"""Why a pod does not run yet: the scheduler's words, an image that cannot be pulled, a Secret that is not there."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from dporun_api.results import Failure
from dporun_api.text import sentence, shorten
from dporun_api.v1alpha1.reasons import Reason
from dporun_api.v1alpha1.spec import DPORunSpec
from dporun_api.v1alpha1.status import ConditionType
from dporun_operator.names import Component
from dporun_operator.plan import ending, messages
from dporun_operator.plan.draft import Draft
from dporun_operator.plan.observed import Job, Pod

_IMAGE = {"ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "RegistryUnavailable"}
_CONFIG = {"CreateContainerConfigError", "CreateContainerError"}


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """What a pod waits for."""

    reason: str
    """Unschedulable, ImagePull, ContainerConfig or Starting."""
    message: str
    failure: Failure | None = None
    """Set once it makes no sense to wait any longer."""


def of(pods: Sequence[Pod], spec: DPORunSpec, *, now: datetime, image_pull_seconds: float) -> Waiting | None:
    """What the first waiting pod of ``pods`` waits for; None when all of them run or have run."""
    for pod in pods:
        if pod.unschedulable is not None:
            return Waiting(reason="Unschedulable", message=f"Waiting for a node: {sentence(pod.unschedulable)}")
    for pod in pods:
        for container in (pod.main, pod.tensorboard):
            words = shorten(container.message or container.waiting or "", 512)
            if container.waiting in _IMAGE:
                message = f"The image of pod {pod.name} cannot be pulled: {words}"
                age = 0.0 if pod.scheduled_at is None else (now - pod.scheduled_at).total_seconds()
                failure = Failure(
                    reason=Reason.IMAGE_PULL,
                    message=message,
                    hint=ending.hint(Reason.IMAGE_PULL, spec),
                    pod=pod.name,
                )
                return Waiting(
                    reason="ImagePull", message=message, failure=failure if age >= image_pull_seconds else None
                )
            if container.waiting in _CONFIG:
                message = f"Pod {pod.name} cannot start: {sentence(words)} It starts by itself once that is there."
                return Waiting(reason="ContainerConfig", message=message)
    for pod in pods:
        if not pod.ended and not pod.main.running and pod.main.exit_code is None:
            return Waiting(reason="Starting", message=f"Pod {pod.name} is starting.")
    return None


def explain(draft: Draft, job: Job, pods: tuple[Pod, ...]) -> bool:
    """Say what ``pods`` wait for, or that there are none yet; False when they do not wait."""
    if not pods:
        draft.tell(messages.no_pods(draft.run, job.name))
        return True
    stuck = of(pods, draft.run.spec, now=draft.now, image_pull_seconds=draft.settings.image_pull_seconds)
    if stuck is None:
        return False
    if stuck.failure:
        draft.delete("Job", job.name)
        draft.fail(stuck.failure)
    elif stuck.reason == "Unschedulable":
        draft.set(ConditionType.SCHEDULED, False, "Unschedulable", stuck.message)
        draft.tell(stuck.message)
    else:
        mark_scheduled(draft, job, pods)
        draft.set(
            ConditionType.RUNNING, False, "Pending" if stuck.reason == "Starting" else stuck.reason, stuck.message
        )
        draft.tell(stuck.message)
        if stuck.reason == "ImagePull":
            draft.requeue(60)
    return True


def mark_scheduled(draft: Draft, job: Job, pods: tuple[Pod, ...]) -> None:
    """Say whether the training pods have nodes; Scheduled is about them alone."""
    if job.component == Component.TRAIN and all(pod.scheduled for pod in pods):
        draft.set(ConditionType.SCHEDULED, True, "Scheduled", "Every pod of the run has a node.")
    else:
        draft.set(ConditionType.SCHEDULED, False, "Pending")
