"""What to say when the API server refuses a child (quota, policy), or when a run cannot be read."""

from datetime import datetime

from dporun_api.results import Failure
from dporun_api.text import sentence, shorten, timestamp
from dporun_api.v1alpha1.reasons import Phase, Reason
from dporun_api.v1alpha1.status import Condition, ConditionType, DPORunStatus
from dporun_operator.plan.run import Run


def status(run: Run, message: str, now: datetime) -> DPORunStatus:
    """The run's status with the refusal in its message; it is tried again, so the run goes on by itself."""
    words = shorten(f"The API server refuses an object of this run, trying again: {sentence(message)}", 1024)
    before = run.condition(ConditionType.SCHEDULED)
    since = before.last_transition_time if before and before.status == "False" else timestamp(now)
    condition = Condition(
        type=ConditionType.SCHEDULED,
        status="False",
        reason="Refused",
        message=words,
        last_transition_time=since,
        observed_generation=run.generation,
    )
    others = tuple(c for c in run.status.conditions if c.type is not ConditionType.SCHEDULED)
    return run.status.model_copy(
        update={
            "phase": Phase.DELETING if run.deleting else run.status.phase or Phase.PENDING,
            "message": words,
            "conditions": (*others, condition),
            "observed_generation": run.generation,
        }
    )


def unreadable(message: str, generation: int, now: datetime) -> DPORunStatus:
    """Status of a run whose shape this version of the operator does not know."""
    words = shorten(f"This version of the operator cannot read the run: {sentence(message)}", 1024)

    def condition(kind: ConditionType, value: bool) -> Condition:
        return Condition(
            type=kind,
            status="True" if value else "False",
            reason=Reason.INVALID_SPEC,
            message=words,
            last_transition_time=timestamp(now),
            observed_generation=generation,
        )

    return DPORunStatus(
        observed_generation=generation,
        phase=Phase.FAILED,
        message=words,
        conditions=(
            condition(ConditionType.ACCEPTED, False),
            condition(ConditionType.SUCCEEDED, False),
            condition(ConditionType.FINISHED, True),
        ),
        completion_time=timestamp(now),
        failure=Failure(reason=Reason.INVALID_SPEC, message=words),
    )
