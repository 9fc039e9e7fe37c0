"""What a run's status is derived from: its phase from its conditions, its columns from its numbers."""

from collections.abc import Mapping
from typing import Any

from dporun_api.results import BestCheckpoint, EvaluationSummary, Metrics
from dporun_api.text import duration, number, shorten
from dporun_api.v1alpha1.reasons import Phase
from dporun_api.v1alpha1.status import Condition, ConditionType, ProgressStatus, Summary
from dporun_operator.plan.run import Run

EVALUATING = "Evaluating"
ARCHIVING = "Archiving"
PREPARING = "Preparing"
"""Reasons of conditions that are False because the work is under way."""

COMPLETED = "Completed"
"""Reason of Running once training is done, evaluation included; it stays whatever becomes of the run then."""

_PHASES: tuple[tuple[ConditionType, str | None, str | None, Phase], ...] = (
    # condition, status, reason, phase: the first row that fits decides
    (ConditionType.FINISHED, "True", "Succeeded", Phase.SUCCEEDED),
    (ConditionType.FINISHED, "True", None, Phase.FAILED),
    (ConditionType.SUSPENDED, "True", None, Phase.SUSPENDED),
    (ConditionType.ARCHIVED, None, ARCHIVING, Phase.ARCHIVING),
    (ConditionType.EVALUATED, None, EVALUATING, Phase.EVALUATING),
    (ConditionType.RUNNING, "True", None, Phase.TRAINING),
    (ConditionType.SCHEDULED, None, "Unschedulable", Phase.QUEUED),
    (ConditionType.SCHEDULED, None, "Queued", Phase.QUEUED),
    (ConditionType.PREPARED, None, PREPARING, Phase.PREPARING),
    (ConditionType.PREPARED, "True", None, Phase.QUEUED),
)


def phase(conditions: Mapping[ConditionType, Condition], *, deleting: bool) -> Phase:
    """Where the run stands, in one word; a convenience, as the conditions say more."""
    if deleting:
        return Phase.DELETING
    for kind, status, reason, result in _PHASES:
        condition = conditions.get(kind)
        if condition and status in {None, condition.status} and reason in {None, condition.reason}:
            return result
    return Phase.PENDING


def summary(run: Run, values: Mapping[str, Any]) -> Summary:
    """Format the columns of ``kubectl get``: a number column would print raw floats."""
    progress: ProgressStatus = values.get("progress") or ProgressStatus()
    metrics: Metrics = values.get("metrics") or Metrics()
    best: BestCheckpoint | None = values.get("best_checkpoint")
    evaluation: EvaluationSummary | None = values.get("evaluation")
    accuracy = evaluation.accuracy if evaluation else metrics.reward_accuracy
    margin = evaluation.reward_margin if evaluation else metrics.reward_margin
    finished = values.get("completion_time") is not None
    eval_loss = best.eval_loss if finished and best and best.eval_loss is not None else metrics.eval_loss
    forgetting = evaluation.forgetting if evaluation else None
    return Summary(
        progress=f"{progress.step}/{progress.total_steps}" if progress.total_steps else None,
        eta=duration(progress.eta_seconds) if progress.eta_seconds is not None and not finished else None,
        eval_loss=number(eval_loss),
        accuracy=None if accuracy is None else f"{accuracy:.2f}",
        margin=None if margin is None else f"{margin:.2f}",
        best=shorten(best.path or f"checkpoint-{best.step}", 64) if best else None,
        model=short_model(run.spec.model.uri),
        gpus=str(run.spec.gpus),
        forgetting=None if forgetting is None else f"{forgetting:.2f}",
    )


def short_model(uri: str) -> str:
    """Shorten a model's address to what tells models apart."""
    scheme, _, path = uri.partition("://")
    return path if scheme == "hf" else "/".join(path.rstrip("/").split("/")[1:][-2:])
