"""Preparation: a Job on a CPU fetches and checks model and data."""

from datetime import UTC, datetime

from dporun_api.text import capitalise, duration, sentence, timestamp
from dporun_api.v1alpha1.reasons import Reason
from dporun_api.v1alpha1.status import ConditionType
from dporun_operator.lifecycle import fits, messages, retries, volume, waiting
from dporun_operator.lifecycle.draft import Draft
from dporun_operator.lifecycle.ending import Ending, judge_ending
from dporun_operator.lifecycle.step import Step
from dporun_operator.lifecycle.stop import lost_pod, still_running
from dporun_operator.names import Component
from dporun_operator.objects.prepare_job import prepare_job
from dporun_operator.observed import Job, Pod


def prepare(draft: Draft) -> Step:
    """Start the Job, follow it, and fail the run where model or data cannot be used."""
    if draft.is_true(ConditionType.PREPARED):
        return Step.DONE
    left, pods = volume.training_left(draft), volume.pods_left(draft)
    if left or pods:
        for job in left:
            draft.delete("Job", job.name)
        draft.set_message(
            draft.status.message or f"{capitalise(messages.stopping(left, pods))}. Then model and data are fetched"
        )
        return Step.WAITING
    return _prepare(draft)


def _prepare(draft: Draft) -> Step:
    draft.set_condition(ConditionType.PREPARED, False, Reason.PREPARING, "Model and data are fetched and checked.")
    draft.set_message("Fetching and checking model and data")
    jobs = volume.tries_to_prepare(draft)
    if not jobs:
        if left := still_running(draft, Component.PREPARE):  # somebody has deleted their Job
            draft.set_message(f"{capitalise(messages.stopping((), left))}. Then model and data are fetched")
            return Step.WAITING
        _start(draft, volume.next_number(draft))
        return Step.WAITING
    job = jobs[-1]
    ours = [pod for pod in draft.observed.pods_of(Component.PREPARE) if pod.controller == job.uid]
    pods = tuple(sorted(ours, key=_created_at))[-1:]
    if not job.finished:
        return _follow(draft, job, pods)
    if not retries.is_settled(draft, job, pods):
        return Step.WAITING
    return _conclude(draft, job, pods)


def _follow(draft: Draft, job: Job, pods: tuple[Pod, ...]) -> Step:
    """Say what the pod waits for; start again, or give up, where waiting makes no sense any longer."""
    if lost := lost_pod(draft, pods):
        draft.delete("Job", job.name)
        draft.set_message(f"Pod {lost.name} was deleted and does not stop; its node does not answer. Preparing again")
        return Step.WAITING
    match waiting.explain(draft, job, pods):
        case Step.GAVE_UP:
            return _give_up(draft)
        case Step.DONE:
            waiting.mark_scheduled(draft, job, pods)
            draft.reset_condition(ConditionType.RUNNING)
            if any(pod.main.running for pod in pods):
                draft.status.failure = None
    return Step.WAITING


def _conclude(draft: Draft, job: Job, pods: tuple[Pod, ...]) -> Step:
    end = judge_ending(job, pods, draft.run.spec)
    if end.outcome and end.outcome.dataset:
        draft.status.dataset = end.outcome.dataset
    if end.succeeded:
        words = (end.outcome.message if end.outcome else "") or "Model and data are ready"
        draft.status.failure = None
        fits.record(draft, end.outcome.memory if end.outcome else None)
        draft.set_condition(ConditionType.PREPARED, True, Reason.PREPARED, sentence(words))
        return Step.DONE
    return _try_again(draft, job, end)


def _try_again(draft: Draft, job: Job, end: Ending) -> Step:
    """Repeat what may pass when its time has come, such as a hub that does not answer; bad input is final at once."""
    status = draft.status
    retry = retries.next_try(draft, job, end, what="Preparing model and data")
    if retry is None:
        if end.failure:
            draft.fail(end.failure)
            if end.failure.reason is Reason.GPU_OUT_OF_MEMORY:  # it has no GPU: the model would not fit on one
                draft.set_condition(ConditionType.FITS, False, end.failure.reason, end.failure.message)
        return _give_up(draft)
    status.failure = end.failure
    draft.set_condition(ConditionType.PREPARED, False, retry.reason, sentence(retry.words))
    draft.set_message(f"{retry.words.rstrip('.')}; it is repeated in {duration(retry.wait)}")
    if retry.wait > 0:
        draft.requeue(retry.wait)
        return Step.WAITING
    status.retries, status.preemptions = retry.retries, retry.preemptions
    _start(draft, job.attempt + 1)
    draft.set_message(f"{sentence(retry.words)} Fetching and checking model and data again")
    return Step.WAITING


def _start(draft: Draft, number: int) -> None:
    """Start a Job of its own for each try, so that how the one before ended stays to be seen."""
    draft.create(prepare_job(draft.run, draft.settings, number))
    draft.status.start_time = draft.status.start_time or timestamp(draft.now)
    for old in draft.observed.jobs_of(Component.PREPARE):
        if old.attempt < number - 1:
            draft.delete("Job", old.name)


def _give_up(draft: Draft) -> Step:
    failure = draft.status.failure
    if failure is not None:
        draft.set_condition(ConditionType.PREPARED, False, failure.reason, failure.message)
    return Step.GAVE_UP


def _created_at(pod: Pod) -> datetime:
    return pod.created_at or datetime.min.replace(tzinfo=UTC)
