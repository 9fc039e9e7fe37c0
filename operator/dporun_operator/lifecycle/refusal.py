"""What to report when the API server refuses a child (quota, policy), or when a run cannot be read."""

from datetime import datetime

from dporun_api.results import Failure
from dporun_api.text import sentence, shorten, timestamp
from dporun_api.v1alpha1.reasons import Phase, Reason
from dporun_api.v1alpha1.status import Condition, ConditionType, DPORunStatus
from dporun_operator.lifecycle import messages
from dporun_operator.lifecycle.conditions import complete, transition
from dporun_operator.run import Run


def refused(run: Run, message: str, now: datetime) -> DPORunStatus:
    """The run's status with the refusal in its message; it is tried again, so the run goes on by itself."""
    words = f"The API server refuses an object of this run, retrying: {sentence(message)}"
    if run.deleting:
        words = f"{words} {messages.how_to_force_release(run)}"
    words = shorten(words, 1024)
    kind = ConditionType.SCHEDULED
    condition = transition(run.condition(kind), kind, False, Reason.REFUSED, words, generation=run.generation, now=now)
    known = {**{c.type: c for c in run.status.conditions}, kind: condition}
    return run.status.model_copy(
        update={
            "phase": Phase.DELETING if run.deleting else run.status.phase or Phase.PENDING,
            "message": words,
            "conditions": complete(known, generation=run.generation, now=now),
            "observed_generation": run.generation,
        }
    )


def unreadable(message: str, generation: int, now: datetime) -> DPORunStatus:
    """Status of a run whose shape this version of the operator does not know."""
    words = shorten(f"This version of the operator cannot read the run: {sentence(message)}", 1024)

    def condition(kind: ConditionType, value: bool) -> Condition:
        return transition(None, kind, value, Reason.INVALID_SPEC, words, generation=generation, now=now)

    judged = {ConditionType.ACCEPTED: False, ConditionType.SUCCEEDED: False, ConditionType.FINISHED: True}
    known = {kind: condition(kind, value) for kind, value in judged.items()}

    return DPORunStatus(
        observed_generation=generation,
        phase=Phase.FAILED,
        message=words,
        conditions=complete(known, generation=generation, now=now),
        completion_time=timestamp(now),
        failure=Failure(reason=Reason.INVALID_SPEC, message=words),
    )
