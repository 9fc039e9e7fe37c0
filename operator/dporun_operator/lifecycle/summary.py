"""What is derived from the rest of a status: the phase from the conditions, the columns from the numbers."""

from collections.abc import Mapping

from dporun_api.results import Metrics
from dporun_api.text import apart, decimals, duration, number, shorten
from dporun_api.v1alpha1.reasons import Phase, traits_of
from dporun_api.v1alpha1.spec import DPORunSpec
from dporun_api.v1alpha1.status import Condition, ConditionType, DPORunStatus, ProgressStatus, Summary

_PHASED = (
    # conditions whose reason may say the phase, the latest in a run's life first
    ConditionType.ARCHIVED,
    ConditionType.EVALUATED,
    ConditionType.RUNNING,
    ConditionType.SCHEDULED,
    ConditionType.PREPARED,
)


def phase(conditions: Mapping[ConditionType, Condition], *, deleting: bool) -> Phase:
    """Where the run stands, in one word; a convenience, as the conditions say more."""

    def is_true(kind: ConditionType) -> bool:
        return kind in conditions and conditions[kind].status == "True"

    if deleting:
        return Phase.DELETING
    if is_true(ConditionType.FINISHED):
        return Phase.SUCCEEDED if is_true(ConditionType.SUCCEEDED) else Phase.FAILED
    if is_true(ConditionType.SUSPENDED):
        return Phase.SUSPENDED
    phases = (traits_of(conditions[kind].reason).phase for kind in _PHASED if kind in conditions)
    reached = {ConditionType.PREPARED: Phase.QUEUED, ConditionType.ACCEPTED: Phase.PREPARING}
    otherwise = next((phase for kind, phase in reached.items() if is_true(kind)), Phase.PENDING)
    return next((found for found in phases if found), otherwise)


def columns(spec: DPORunSpec, status: DPORunStatus) -> Summary:
    """Format the columns of ``kubectl get``: a number column would print raw floats."""
    progress = status.progress or ProgressStatus()
    metrics = status.metrics or Metrics()
    best, evaluation = status.best_checkpoint, status.evaluation
    accuracy = evaluation.accuracy if evaluation else metrics.reward_accuracy
    margin = evaluation.reward_margin if evaluation else metrics.reward_margin
    finished = status.completion_time is not None
    runs = status.phase in {Phase.TRAINING, Phase.EVALUATING}
    eval_loss = best.eval_loss if finished and best and best.eval_loss is not None else metrics.eval_loss
    forgetting = evaluation.forgetting if evaluation else None
    gates = status.verdict.gates if status.verdict else ()

    def written(value: float | None, gate: str) -> str | None:
        """Write it so that it does not read like the limit of its gate."""
        limits = [result.limit for result in gates if result.name == gate]
        return None if value is None else apart(value, *limits, write=decimals, digits=2)

    return Summary(
        progress=f"{progress.step}/{progress.total_steps}" if progress.total_steps else None,
        eta=duration(progress.eta_seconds) if progress.eta_seconds is not None and runs else None,
        eval_loss=number(eval_loss),
        accuracy=written(accuracy, "accuracy"),
        margin=written(margin, "rewardMargin"),
        best=shorten(best.name, 64) if best else None,
        model=short_model(spec.model.uri),
        gpus=str(spec.gpus),
        forgetting=written(forgetting, "forgetting"),
    )


def short_model(uri: str) -> str:
    """Shorten a model's address to what distinguishes models."""
    scheme, _, path = uri.partition("://")
    return path if scheme == "hf" else "/".join(path.rstrip("/").split("/")[1:][-2:])
