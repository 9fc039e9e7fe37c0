"""``status.message``: one sentence that says where the run stands and what to do next."""

from collections.abc import Sequence

from dporun_api.metrics import LOSS, REWARD_ACCURACY, REWARD_MARGIN, Split
from dporun_api.results import Failure, Health, HealthState, Metrics, Progress, Stage, Suggestion
from dporun_api.text import capitalise, duration, number, sentence, timestamp
from dporun_operator import names
from dporun_operator.lifecycle.draft import Draft
from dporun_operator.names import Component
from dporun_operator.objects.tensorboard import port_forward
from dporun_operator.observed import Job, Pod
from dporun_operator.run import Run


def starting(run: Run, attempt: int, failure: Failure | None) -> str:
    """An attempt has just been started; the one before ended by that ``failure``, or by none."""
    pods = "pods" if run.spec.distributed.nodes > 1 else "pod"
    if attempt == 1:
        return f"Waiting for the training {pods}"
    words = f"Waiting for the training {pods} of attempt {attempt}"
    return f"{of_failure(failure)} {words}" if failure else words


def of_failure(failure: Failure | None) -> str | None:
    """Why something failed, with its reason; None where nothing did."""
    return f"{failure.reason}: {sentence(failure.message)}" if failure else None


def no_pods(run: Run, job: str) -> str:
    """A Job has no pods although nothing is known to refuse them."""
    return f"Job {job} has no pods yet; to see why: kubectl -n {run.namespace} describe job {job}"


def pods_gone(attempt: int) -> str:
    """The pods of an attempt that ran no longer exist, and its Job does not say yet what that means."""
    return f"The pods of attempt {attempt} were deleted or evicted. The next attempt starts once its Job has ended."


def pods_ended(attempt: int) -> str:
    """The pods of an attempt have ended, or its Job has; the other is awaited, to judge by both."""
    return f"Attempt {attempt} has ended. What its pods and its Job say of that is awaited, for half a minute at most."


def pod_stops(pod: Pod, attempt: int) -> str:
    """A pod that trains is being stopped by something else than the operator."""
    by = f" ({pod.disruption})" if pod.disruption else ""
    return f"Pod {pod.name} is being stopped{by}. Attempt {attempt + 1} goes on from its newest checkpoint."


def training(draft: Draft, attempt: int) -> str:
    """An attempt runs."""
    parts = _doing(draft)
    if attempt > 1:
        parts.append(f"attempt {attempt}")
    words = [sentence(", ".join(parts))]
    if problem := _health_problem(draft.status.health):
        words.append(problem)
    if draft.status.checkpoint_upload and draft.status.checkpoint_upload.problem:
        words.append(f"Checkpoints cannot be uploaded now: {sentence(draft.status.checkpoint_upload.problem)}")
    if draft.run.spec.tensorboard.enabled and not draft.observed.refused_objects:
        words.append(f"TensorBoard: {port_forward(draft.run)}")
    return " ".join(words)


def _doing(draft: Draft) -> list[str]:
    """What the training pod is doing, and how far it is."""
    status, reported = draft.status, draft.observed.progress
    progress, metrics, best = status.progress, status.metrics or Metrics(), status.best_checkpoint
    if reported is not None and reported.stage in {Stage.EVALUATING, Stage.REPORTING, Stage.DONE}:
        return [evaluating(reported)]
    if progress is None or not progress.total_steps:
        return ["Loading model and data"]
    parts = [f"Step {progress.step}/{progress.total_steps}"]
    if metrics.eval_loss is not None:
        parts.append(f"{LOSS.label_of(Split.VALIDATION)} {number(metrics.eval_loss)}")
    if metrics.reward_accuracy is not None:
        parts.append(f"{REWARD_ACCURACY.label} {metrics.reward_accuracy:{REWARD_ACCURACY.format}}")
    if metrics.reward_margin is not None:
        parts.append(f"{REWARD_MARGIN.short} {number(metrics.reward_margin)}")
    if best is not None:
        parts.append(f"best {best.name}")
    if progress.eta_seconds is not None:
        parts.append(f"about {duration(progress.eta_seconds)} left")
    return parts


def evaluating(reported: Progress) -> str:
    """The training pod has trained, and is at what comes after."""
    doing = "Writing the report" if reported.stage is Stage.REPORTING else "Comparing base and tuned model"
    return f"{doing} ({reported.detail})" if reported.detail else doing


def _health_problem(health: Health | None) -> str | None:
    """What is wrong with the run's curves and what to change; None when nothing is."""
    if health is None or health.state in {HealthState.ON_TRACK, HealthState.UNKNOWN}:
        return None
    evidence = health.evidence[0] if health.evidence else "see status.health"
    changes = [_change(suggestion) for suggestion in health.suggestions[:1]]
    return " ".join([sentence(f"{health.state}: {evidence}"), *changes])


def _change(suggestion: Suggestion) -> str:
    """What to do the next time; one about the data, or whose present value is unknown, names no new value."""
    if suggestion.proposed is None:
        return sentence(suggestion.reason)
    return f"Next time set {suggestion.path} to {suggestion.proposed}."


def suspended(run: Run) -> str:
    """The run is suspended."""
    patch = '{"spec":{"suspend":false}}'
    return f"Suspended; to go on: kubectl -n {run.namespace} patch dporun {run.name} --type merge -p '{patch}'"


def how_to_archive_again(run: Run) -> str:
    """How to have a run archived that has given up."""
    return (
        "To archive once more when that is mended: "
        f"kubectl -n {run.namespace} annotate dporun {run.name} {names.RETRY}=archive"
    )


def how_to_force_delete(run: Run) -> str:
    """How to delete a run whose archive does not work."""
    patch = '{"spec":{"deletionPolicy":"Retain"}}'
    return (
        "To delete the run without an archive and keep its volume: "
        f"kubectl -n {run.namespace} patch dporun {run.name} --type merge -p '{patch}'"
    )


def how_to_force_release(run: Run) -> str:
    """How to let go of a deleted run that cannot be archived any more, such as in a namespace that is deleted, too."""
    return (
        f"Its results stay on PersistentVolumeClaim {run.claim_name}. To give them up: "
        f"kubectl -n {run.namespace} annotate dporun {run.name} {names.FORCE_RELEASE}={run.uid}"
    )


def failed(failure: Failure | None, retries: int) -> str:
    """The run has failed for good, after so many ``retries``."""
    if failure is None:
        return "The run failed"
    tried = f"It was retried {retries} times." if retries > 1 else "It was retried once."
    words = (of_failure(failure), failure.hint, tried if retries and failure.reason.traits.retried else None)
    return " ".join(filter(None, words))


def succeeded(draft: Draft) -> str:
    """The run is done."""
    verdict, evaluation, archive = draft.status.verdict, draft.status.evaluation, draft.status.archive
    best = draft.status.best_checkpoint
    parts = []
    if verdict is not None:
        parts.append(f"{verdict.state}{'' if verdict.passed else f' ({verdict.gates_in_words})'}")
    if verdict is not None and evaluation is not None:
        parts.append(f"accuracy {verdict.accuracy(evaluation)}, margin {verdict.reward_margin(evaluation)}")
    if best is not None:
        parts.append(f"best {best.name}")
    if archive and archive.uri:
        parts.append(f"results are in {archive.uri}")
    else:
        parts.append(f"results are on volume {draft.run.claim_name} in {draft.run.directory}")
        if draft.run.spec.archive is not None and archive and archive.message:
            parts.append(archive.message)
    return capitalise("; ".join(parts))


def stopping(jobs: Sequence[Job], pods: Sequence[Pod]) -> str:
    """What a run that is being stopped waits for: the first of its pods, or its Jobs."""
    if not pods:
        return f"waiting for Job {jobs[0].name} to be deleted" if jobs else "waiting for its Jobs to be deleted"
    pod = next((pod for pod in pods if not pod.ended), pods[0])
    others = sum(not other.ended for other in pods) - 1
    more = f" and {others} more" if others > 0 else ""
    if pod.ended:
        return f"waiting for pod {pod.name} to be deleted"
    saves = pod.component == Component.TRAIN and pod.main.running
    does = "save a checkpoint and stop" if saves else "stop"
    return f"waiting for pod {pod.name}{more} to {does}"


def deleting(run: Run, step: str) -> str:
    """The run is being deleted."""
    since = f" since {timestamp(run.deletion_time)}" if run.deletion_time else ""
    return f"Deleting{since}: {step}"
