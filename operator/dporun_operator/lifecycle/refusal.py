"""What to report when the API server refuses a child (quota, policy), or when a run cannot be read."""

from datetime import datetime

from dporun_api.text import sentence, shorten
from dporun_api.v1alpha1.reasons import Phase, Reason
from dporun_api.v1alpha1.status import ConditionType, DPORunStatus
from dporun_operator import names
from dporun_operator.lifecycle import messages
from dporun_operator.lifecycle.conditions import complete, transition
from dporun_operator.run import Manifest, Run


def refused(run: Run, message: str, now: datetime) -> DPORunStatus:
    """The run's status with the refusal in its message; it is tried again, so the run goes on by itself."""
    words = f"The API server refuses an object of this run, retrying: {sentence(message)}"
    if run.deleting:
        words = f"{words} {messages.how_to_force_release(run)}"
    words = shorten(words, 1024)
    kind = _refused_aspect(run)
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


def _refused_aspect(run: Run) -> ConditionType:
    """The condition that the next step sets anew, so that nothing is left of a refusal that is over.

    Once the work is done or given up, that is Archived, unless it has been reached: then it holds what it says.
    """
    statuses = {condition.type: condition.status for condition in run.status.conditions}
    archived = statuses.get(ConditionType.ARCHIVED) == "True"
    return ConditionType.ARCHIVED if is_closing(run.status) and not archived else ConditionType.SCHEDULED


def is_closing(status: DPORunStatus) -> bool:
    """Whether the work of a run is done or given up: what is refused then is its archive, not its end."""
    gave_up = any(c.type is ConditionType.SUCCEEDED and c.status == "False" for c in status.conditions)
    return gave_up or status.training_completion_time is not None


def cannot_read(problem: str, metadata: Manifest) -> str:
    """What a run says whose shape this version of the operator does not know, and how to let go of it all the same."""
    words = f"This version of the operator cannot read the run and leaves it to one that can: {sentence(problem)}"
    if "deletionTimestamp" in metadata:
        name, uid = f"-n {metadata['namespace']} annotate dporun {metadata['name']}", metadata["uid"]
        words = f"{words} To give its results up: kubectl {name} {names.FORCE_RELEASE}={uid}"
    return shorten(words, 1024)


def unreadable(words: str, generation: int, now: datetime) -> DPORunStatus:
    """Status of such a run, which has not begun; it can begin once it can be read."""
    kind = ConditionType.ACCEPTED
    condition = transition(None, kind, False, Reason.INVALID_SPEC, words, generation=generation, now=now)
    return DPORunStatus(
        observed_generation=generation,
        phase=Phase.PENDING,
        message=words,
        conditions=complete({kind: condition}, generation=generation, now=now),
    )
