"""``status.message``: one sentence that says where the run stands and what to do next."""

from dporun_api.results import BestCheckpoint, Failure, HealthState, Metrics, Stage
from dporun_api.text import duration, number, sentence
from dporun_api.v1alpha1.status import ProgressStatus
from dporun_operator.plan import tensorboard
from dporun_operator.plan.draft import Draft
from dporun_operator.plan.run import Run


def starting(run: Run, attempt: int, failure: Failure | None) -> str:
    """An attempt has just been started."""
    if attempt == 1:
        return "Waiting for the training pods" if run.spec.distributed.nodes > 1 else "Waiting for the training pod"
    after = f" after {failure.reason}: {failure.message}" if failure else ""
    return f"Attempt {attempt} starts{after}"


def no_pods(run: Run, job: str) -> str:
    """A Job has no pods yet: only its own Events tell of a quota or a policy that refuses them."""
    return f"Job {job} has no pods yet; if it gets none, see why: kubectl -n {run.namespace} describe job {job}"


def training(draft: Draft, attempt: int) -> str:
    """An attempt runs."""
    seen = draft.observed.progress
    progress: ProgressStatus | None = draft.get("progress")
    metrics: Metrics = draft.get("metrics") or Metrics()
    best: BestCheckpoint | None = draft.get("best_checkpoint")
    if seen is not None and seen.stage in {Stage.EVALUATING, Stage.REPORTING, Stage.DONE}:
        doing = "Writing the report" if seen.stage is Stage.REPORTING else "Comparing base and tuned model"
        parts = [f"{doing} ({seen.detail})" if seen.detail else doing]
    elif progress is None or not progress.total_steps:
        parts = ["Loading model and data"]
    else:
        parts = [f"Step {progress.step}/{progress.total_steps}"]
        if metrics.eval_loss is not None:
            parts.append(f"validation loss {number(metrics.eval_loss)}")
        if metrics.reward_accuracy is not None:
            parts.append(f"reward accuracy {metrics.reward_accuracy:.0%}")
        if metrics.reward_margin is not None:
            parts.append(f"margin {number(metrics.reward_margin)}")
        if best is not None:
            parts.append(f"best {best.path or f'checkpoint-{best.step}'}")
        if progress.eta_seconds is not None:
            parts.append(f"about {duration(progress.eta_seconds)} left")
    if attempt > 1:
        parts.append(f"attempt {attempt}")
    words = sentence(", ".join(parts))
    health = draft.get("health")
    if health and health.state not in {HealthState.ON_TRACK, HealthState.UNKNOWN}:
        change = next((f"; next time set {s.path} to {s.proposed}" for s in health.suggestions[:1]), "")
        words += f" {health.state}: {health.evidence[0] if health.evidence else 'see status.health'}{change}."
    if draft.run.spec.tensorboard.enabled:
        words += f" TensorBoard: {tensorboard.port_forward(draft.run)}"
    return words


def suspended(run: Run) -> str:
    """The run is suspended."""
    patch = '{"spec":{"suspend":false}}'
    return f"Suspended; to go on: kubectl -n {run.namespace} patch dporun {run.name} --type merge -p '{patch}'"


def let_go(run: Run) -> str:
    """How to delete a run whose archive does not work."""
    patch = '{"spec":{"deletionPolicy":"Retain"}}'
    return (
        "To delete the run without an archive and keep its volume: "
        f"kubectl -n {run.namespace} patch dporun {run.name} --type merge -p '{patch}'"
    )


def failed(failure: Failure) -> str:
    """The run has failed for good."""
    return f"{failure.reason}: {sentence(failure.message)} {failure.hint or ''}".strip()


def succeeded(draft: Draft) -> str:
    """The run is done."""
    parts = []
    verdict, evaluation, archive = draft.get("verdict"), draft.get("evaluation"), draft.get("archive")
    if verdict is not None:
        parts.append(f"{verdict.state}{'' if verdict.passed else ', not every gate reached'}")
    if evaluation is not None:
        parts.append(f"accuracy {evaluation.accuracy:.0%}, margin {number(evaluation.reward_margin)}")
    best: BestCheckpoint | None = draft.get("best_checkpoint")
    if best is not None:
        parts.append(f"best {best.path or f'checkpoint-{best.step}'}")
    where = f"in {archive.uri}" if archive and archive.uri else f"on volume {draft.run.claim_name}"
    parts.append(f"results are {where}" + ("" if archive and archive.uri else f" in {draft.run.directory}"))
    return "; ".join(parts)[:1].upper() + "; ".join(parts)[1:]


def deleting(step: str) -> str:
    """The run is being deleted."""
    return f"Deleting: {step}"
