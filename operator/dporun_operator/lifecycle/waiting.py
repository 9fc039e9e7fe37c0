"""Why a pod does not run yet: the scheduler's words, an image that cannot be pulled, a Secret that does not exist."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from dporun_api.results import Failure
from dporun_api.text import sentence, shorten
from dporun_api.v1alpha1.reasons import Reason
from dporun_api.v1alpha1.status import ConditionType
from dporun_operator import names
from dporun_operator.lifecycle import messages, volume
from dporun_operator.lifecycle.draft import Draft
from dporun_operator.lifecycle.step import Step
from dporun_operator.names import Component
from dporun_operator.observed import NO_POD_SECONDS, Container, Job, Pod

_IMAGE = {"ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "RegistryUnavailable"}
_CONFIG = {"CreateContainerConfigError", "CreateContainerError"}

IMAGE_PULL_LOOK_SECONDS = 60.0
"""How often to look at an image that cannot be pulled: no event says that it still cannot."""

NO_POD_LOOK_SECONDS = 60.0
"""How often to ask why a Job gets no pod: only its Events tell, and they are not watched."""


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """What a pod waits for."""

    reason: Reason
    """UNSCHEDULABLE, IMAGE_PULL, CONTAINER_CONFIG, or PENDING while nothing is wrong."""
    message: str
    failure: Failure | None = None
    """Set once it makes no sense to wait any longer."""


def waiting_reason(pods: Sequence[Pod], *, now: datetime, image_pull_seconds: float) -> Waiting | None:
    """What the first waiting pod of ``pods`` waits for; None when all of them run or have run.

    Args:
        pods: of one Job.
        now: the time.
        image_pull_seconds: how long an image may fail to be pulled before waiting makes no sense any longer.

    """
    for pod in pods:
        if pod.unschedulable is not None:
            return Waiting(reason=Reason.UNSCHEDULABLE, message=f"Waiting for a node: {sentence(pod.unschedulable)}")
    for pod in pods:
        for container in (pod.main, pod.tensorboard):
            if container.waiting in _IMAGE:
                return _image(pod, container, now, image_pull_seconds)
            if container.waiting in _CONFIG:
                message = f"Pod {pod.name} cannot start: {sentence(_words(container))}"
                return Waiting(
                    reason=Reason.CONTAINER_CONFIG, message=f"{message} It starts by itself once that is there."
                )
    for pod in pods:
        if not pod.ended and not pod.main.running and pod.main.exit_code is None:
            return Waiting(reason=Reason.PENDING, message=f"Pod {pod.name} is starting.")
    return None


def _image(pod: Pod, container: Container, now: datetime, patience: float) -> Waiting:
    message = f"The image of pod {pod.name} cannot be pulled: {_words(container)}"
    age = 0.0 if pod.scheduled_at is None else (now - pod.scheduled_at).total_seconds()
    reason = Reason.IMAGE_PULL
    failure = Failure(reason=reason, message=message, hint=reason.traits.hint, pod=pod.name)
    return Waiting(reason=reason, message=message, failure=failure if age >= patience else None)


def _words(container: Container) -> str:
    return shorten(container.message or container.waiting or "", 512)


def explain(draft: Draft, job: Job, pods: tuple[Pod, ...]) -> Step:
    """Say what ``pods`` wait for, or that there are none yet.

    Returns:
        DONE when they do not wait, GAVE_UP when the run has failed because they waited for too long.

    """
    if refused := pods_refused(draft, job):
        draft.set_condition(ConditionType.SCHEDULED, False, Reason.REFUSED, refused)
        draft.set_message(refused)
        return Step.WAITING
    if not pods:
        _explain_absence(draft, job)
        return Step.WAITING
    stuck = waiting_reason(pods, now=draft.now, image_pull_seconds=draft.settings.image_pull_seconds)
    if stuck is None:
        return Step.DONE
    busy = any(pod.main.running for pod in pods)  # it may still be saving; then its end decides about the attempt
    if failure := lost_volume(draft, stuck) or (None if busy else stuck.failure):
        draft.fail(failure)
        return Step.GAVE_UP
    if stuck.reason is Reason.PENDING and not (job.component == Component.TRAIN and all(pod.scheduled for pod in pods)):
        _await_start(draft, job, pods)
        return Step.WAITING
    if stuck.reason is Reason.UNSCHEDULABLE:
        draft.set_condition(ConditionType.SCHEDULED, False, stuck.reason, stuck.message)
    else:
        mark_scheduled(draft, job, pods)
        draft.set_condition(ConditionType.RUNNING, False, stuck.reason, stuck.message)
    if stuck.reason is Reason.IMAGE_PULL:
        draft.requeue(IMAGE_PULL_LOOK_SECONDS)
    draft.set_message(stuck.message)
    return Step.WAITING


def _await_start(draft: Draft, job: Job, pods: tuple[Pod, ...]) -> None:
    """Nothing is wrong, and what has been said of the Job holds: that each of its pods comes is not worth a write."""
    mark_scheduled(draft, job, pods)
    draft.reset_condition(ConditionType.RUNNING)
    if job.component == Component.TRAIN:
        draft.set_message(messages.starting(draft.run, job.attempt, draft.status.failure))


def pods_refused(draft: Draft, job: Job) -> str | None:
    """Why the API server refuses the pods of ``job``; None where it does not. Asks to look again while some lack."""
    words = draft.observed.refused_pods.get(job.name)
    if len(draft.observed.pods_of(Component(job.component), job.attempt)) < job.parallelism:
        late = job in draft.observed.jobs_without_pods(draft.now)
        draft.requeue(NO_POD_LOOK_SECONDS if late else NO_POD_SECONDS)
    if words is None:
        return None
    return f"The API server refuses pods of Job {job.name}: {sentence(words)} They are made once it allows them."


def _explain_absence(draft: Draft, job: Job) -> None:
    """Say why there is no pod: it has been there and is gone, or it should have come by now."""
    if job.component == Component.TRAIN and draft.is_true(ConditionType.SCHEDULED):
        words = messages.pods_gone(job.attempt)
        draft.set_condition(ConditionType.RUNNING, False, Reason.ENDING, words)
        draft.set_message(words)
    elif job in draft.observed.jobs_without_pods(draft.now):
        draft.set_message(messages.no_pods(draft.run, job.name))


def lost_volume(draft: Draft, stuck: Waiting) -> Failure | None:
    """The failure of a run that has begun to train and whose volume no pod can use any more; None where one can.

    The scheduler says so: it gives no node to a pod whose claim does not exist or is being deleted.
    """
    claim = draft.run.claim_name
    if not draft.started or volume.is_to_be_made(draft):
        return None
    if f'persistentvolumeclaim "{claim}" not found' in stuck.message:
        message, hint = f"PersistentVolumeClaim {claim} was deleted, and the checkpoints with it.", None
        if checkpoint := volume.uploaded(draft):
            message, hint = f"PersistentVolumeClaim {claim} was deleted.", f"There still is {checkpoint}."
    elif f'persistentvolumeclaim "{claim}" is being deleted' in stuck.message:
        message = f"PersistentVolumeClaim {claim} was deleted: no pod can use it any more."
        hint = f"Its data stays until its finalizer {names.RESULTS_FINALIZER} is taken off: save it from the volume."
        if checkpoint := volume.uploaded(draft):
            hint = f"{hint} There also is {checkpoint}."
    else:
        return None
    return Failure(reason=Reason.VOLUME_LOST, message=message, hint=hint or Reason.VOLUME_LOST.traits.hint)


def mark_scheduled(draft: Draft, job: Job, pods: tuple[Pod, ...]) -> None:
    """Say whether the training pods have nodes; Scheduled is about them alone."""
    if job.component == Component.TRAIN and all(pod.scheduled for pod in pods):
        draft.set_condition(ConditionType.SCHEDULED, True, Reason.SCHEDULED, "Every pod of the run has a node.")
    else:
        draft.reset_condition(ConditionType.SCHEDULED)
