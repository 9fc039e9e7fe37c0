"""TensorBoard: beside the training, and for some time after the run has finished."""

from dporun_api.pod import TENSORBOARD_PORT
from dporun_api.text import parse_time, sentence
from dporun_api.v1alpha1.reasons import Reason
from dporun_api.v1alpha1.status import ConditionType, TensorBoardStatus
from dporun_operator import names
from dporun_operator.lifecycle.draft import Draft
from dporun_operator.lifecycle.step import Step
from dporun_operator.names import Component
from dporun_operator.objects.tensorboard import port_forward, tensorboard_deployment, tensorboard_service

_SERVING = (Component.TRAIN, Component.TENSORBOARD)

REFUSED_LOOK_SECONDS = 60.0
"""How often an object that was refused is tried again: nothing tells when it would be allowed."""


def tensorboard(draft: Draft) -> Step:
    """Have TensorBoard while it is wanted, and say whether it answers."""
    spec = draft.run.spec.tensorboard
    finished = draft.is_true(ConditionType.FINISHED)
    left = draft.seconds_left(parse_time(draft.status.completion_time), spec.ttl_seconds_after_finished)
    if not spec.enabled or not draft.status.attempt or (finished and left == 0):
        _stop(draft)
        return Step.DONE
    if finished:
        draft.requeue(left)
    _serve(draft, finished=finished)
    return Step.WAITING


def _serve(draft: Draft, *, finished: bool) -> None:
    run = draft.run
    if finished:
        draft.apply_if_allowed(tensorboard_deployment(run, draft.settings))
    draft.apply_if_allowed(tensorboard_service(run))
    command = port_forward(run)
    draft.status.tensorboard = TensorBoardStatus(
        service=names.tensorboard(run.name), port=TENSORBOARD_PORT, command=command
    )
    # The Deployment stays while a finished run is archived once more.
    every = (pod for component in _SERVING for pod in draft.observed.pods_of(component))
    pods = [pod for pod in every if pod.index == 0 and not pod.ended]
    if refused := next(iter(draft.observed.refused_objects.items()), None):
        words = f"The API server refuses {' '.join(refused[0].split('/'))}: {sentence(refused[1])} The run goes on."
        draft.set_condition(ConditionType.TENSORBOARD_READY, False, Reason.REFUSED, words)
        draft.requeue(REFUSED_LOOK_SECONDS)
    elif any(pod.tensorboard.ready for pod in pods):
        draft.set_condition(
            ConditionType.TENSORBOARD_READY, True, Reason.TENSORBOARD_READY, f"To see the curves: {command}"
        )
    else:
        draft.reset_condition(ConditionType.TENSORBOARD_READY)


def _stop(draft: Draft) -> None:
    if draft.status.tensorboard is None:
        return
    name = names.tensorboard(draft.run.name)
    draft.delete("Deployment", name)
    draft.delete("Service", name)
    draft.status.tensorboard = None
    draft.set_condition(ConditionType.TENSORBOARD_READY, False, Reason.STOPPED, "TensorBoard has been stopped.")
