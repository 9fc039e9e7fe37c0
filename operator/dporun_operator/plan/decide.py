"""From a run and what was observed of it to what should be done: the one entry to all decisions."""

from datetime import datetime

from dporun_api.pod import TENSORBOARD_PORT
from dporun_api.text import parse_time
from dporun_api.v1alpha1.status import ConditionType, TensorBoardStatus
from dporun_operator import names
from dporun_operator.names import Component
from dporun_operator.plan import deletion, stages, tensorboard
from dporun_operator.plan.actions import Plan
from dporun_operator.plan.draft import Draft
from dporun_operator.plan.observed import Observed
from dporun_operator.plan.run import Run
from dporun_operator.settings import Settings


def decide(run: Run, observed: Observed, settings: Settings, now: datetime) -> Plan:
    """Decide what to do about a run.

    Args:
        run: the resource, with the status last written.
        observed: its Jobs, Pods and progress.
        settings: the operator's.
        now: the time, with its zone.

    """
    draft = Draft(run, observed, settings, now)
    if run.deleting:
        deletion.delete(draft)
        return draft.plan()
    if not draft.holds(ConditionType.FINISHED):
        for stage in stages.STAGES:
            if not stage(draft):
                break
    _tensorboard(draft)
    _expire(draft)
    return draft.plan()


def _tensorboard(draft: Draft) -> None:
    """TensorBoard while the run trains, and for some time after."""
    run = draft.run
    wanted = run.spec.tensorboard.enabled and bool(draft.get("attempt"))
    finished = draft.holds(ConditionType.FINISHED)
    left = draft.after(parse_time(draft.get("completion_time")), run.spec.tensorboard.ttl_seconds_after_finished)
    if finished and wanted and left > 0:
        draft.apply(tensorboard.deployment(run, draft.settings))
        draft.requeue(left)
    elif finished or not wanted:
        if draft.get("tensorboard") is not None:
            draft.delete("Deployment", names.tensorboard(run.name))
            draft.delete("Service", names.tensorboard(run.name))
            draft.update(tensorboard=None)
            draft.set(ConditionType.TENSORBOARD_READY, False, "Stopped", "TensorBoard has been stopped.")
        return
    draft.apply(tensorboard.service(run, finished=finished))
    place = TensorBoardStatus(
        service=names.tensorboard(run.name), port=TENSORBOARD_PORT, command=tensorboard.port_forward(run)
    )
    draft.update(tensorboard=place)
    component = Component.TENSORBOARD if finished else Component.TRAIN
    pods = [pod for pod in draft.observed.pods_of(component) if pod.index == 0 and not pod.ended]
    if any(pod.tensorboard.ready for pod in pods):
        draft.set(ConditionType.TENSORBOARD_READY, True, "TensorBoardReady", place.command or "")
    else:
        draft.set(ConditionType.TENSORBOARD_READY, False, "Pending", "No pod serves TensorBoard at the moment.")


def _expire(draft: Draft) -> None:
    """Delete a run that has been finished for long enough."""
    seconds = draft.run.spec.run_policy.ttl_seconds_after_finished
    if seconds is None or not draft.holds(ConditionType.FINISHED):
        return
    left = draft.after(parse_time(draft.get("completion_time")), seconds)
    if left > 0:
        draft.requeue(left)
    else:
        draft.delete_run = True
