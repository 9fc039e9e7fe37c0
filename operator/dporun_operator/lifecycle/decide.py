"""From a run and what was observed of it to what should be done: the one entry to all decisions."""

from collections.abc import Callable
from datetime import datetime

from dporun_api.v1alpha1.status import ConditionType
from dporun_operator.lifecycle.accept import accept, await_source
from dporun_operator.lifecycle.archive import archive
from dporun_operator.lifecycle.delete import delete
from dporun_operator.lifecycle.draft import Draft
from dporun_operator.lifecycle.expire import expire
from dporun_operator.lifecycle.finish import finish, restate
from dporun_operator.lifecycle.plan import Plan
from dporun_operator.lifecycle.prepare import prepare
from dporun_operator.lifecycle.provide import provide
from dporun_operator.lifecycle.recall import recall
from dporun_operator.lifecycle.reopen import reopen
from dporun_operator.lifecycle.step import Step
from dporun_operator.lifecycle.stop import stop
from dporun_operator.lifecycle.suspend import suspend
from dporun_operator.lifecycle.tensorboard import tensorboard
from dporun_operator.lifecycle.train import train
from dporun_operator.observed import Observed
from dporun_operator.run import Run
from dporun_operator.settings import Settings

Steps = tuple[Callable[[Draft], Step], ...]

WORK: Steps = (
    accept,  # refuse what the schema of the API cannot refuse
    suspend,  # stop what runs, if asked to
    await_source,  # the run to start from must have an archive
    provide,  # the volume, the configuration and the Service that the pods need
    prepare,  # fetch and check model and data, on a CPU
    train,  # train, evaluate and judge, one Job per attempt
)
"""A run that has not failed takes these steps in this order, each time from the first."""

CLOSING: Steps = (
    stop,  # what a failed run has left running
    archive,  # prune checkpoints and upload the results
    finish,  # Succeeded or Failed, for good
)
"""Then, however the work ended."""

ASIDE: Steps = (
    tensorboard,  # while the run trains, and for some time after
    expire,  # delete a run that has been finished for long enough
)
"""Beside all that."""


def decide(run: Run, observed: Observed, settings: Settings, now: datetime) -> Plan:
    """Decide what to do about a run.

    Args:
        run: the resource, with the status last written.
        observed: its Jobs, Pods and progress.
        settings: the operator's.
        now: the time, with its zone.

    """
    draft = Draft(run, observed, settings, now)
    recall(draft)
    if run.deleting:
        delete(draft)
        return draft.plan()
    if draft.is_true(ConditionType.FINISHED):
        restate(draft)
        reopen(draft)
    if not draft.is_true(ConditionType.FINISHED) and _work(draft) is not Step.WAITING:
        _take(CLOSING, draft)
    for step in ASIDE:
        step(draft)
    return draft.plan()


def _work(draft: Draft) -> Step:
    return Step.GAVE_UP if draft.failed else _take(WORK, draft)


def _take(steps: Steps, draft: Draft) -> Step:
    """Take ``steps`` until one is not done; says how that one stands."""
    return next((result for step in steps if (result := step(draft)) is not Step.DONE), Step.DONE)
