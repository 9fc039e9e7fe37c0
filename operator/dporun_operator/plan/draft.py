"""Draft: the plan in the making. The stages of a run add to it, one after the other."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Literal

from dporun_api.results import Failure, HealthState
from dporun_api.text import sentence, shorten, timestamp
from dporun_api.v1alpha1.reasons import Reason
from dporun_api.v1alpha1.status import Condition, ConditionType, DPORunStatus
from dporun_operator.plan import status
from dporun_operator.plan.actions import Delete, Event, Plan
from dporun_operator.plan.observed import Observed
from dporun_operator.plan.run import Manifest, Run
from dporun_operator.settings import Settings

WARNINGS = {
    "ImagePull", "ContainerConfig", "Unschedulable", "Retrying", "Preempted",
    HealthState.OVERFITTING, HealthState.UNDERFITTING, HealthState.UNSTABLE, HealthState.CONFUSED,
    *Reason,
}  # fmt: skip
"""Reasons whose Events are warnings."""
QUIET = {"Pending", "NotNeeded", "InProgress", "Unknown"}
"""Reasons that only say that nothing has happened yet."""

_TEXT: dict[bool | None, Literal["True", "False", "Unknown"]] = {True: "True", False: "False", None: "Unknown"}


class Draft:
    """Collects actions and the new status; starts from the status last written, so what is not said again stays."""

    def __init__(self, run: Run, observed: Observed, settings: Settings, now: datetime):
        self.run = run
        self.observed = observed
        self.settings = settings
        self.now = now
        self._fields: dict[str, Any] = {}
        self._conditions = {condition.type: condition for condition in run.status.conditions}
        self._apply: list[Manifest] = []
        self._create: list[Manifest] = []
        self._delete: list[Delete] = []
        self._events: list[Event] = []
        self._requeue: float | None = None
        self.delete_run = False
        self.release = False

    # What is known so far.

    def get(self, field: str) -> Any:
        """The newest value of a field of the status."""
        return self._fields.get(field, getattr(self.run.status, field))

    def condition(self, kind: ConditionType) -> Condition | None:
        """The newest state of a condition."""
        return self._conditions.get(kind)

    def holds(self, kind: ConditionType) -> bool:
        """Whether a condition is True."""
        condition = self._conditions.get(kind)
        return condition is not None and condition.status == "True"

    def because(self, kind: ConditionType) -> str | None:
        """Reason of a condition."""
        condition = self._conditions.get(kind)
        return condition.reason if condition else None

    @property
    def failed(self) -> bool:
        """Whether the run has failed for good."""
        condition = self._conditions.get(ConditionType.SUCCEEDED)
        return condition is not None and condition.status == "False"

    @property
    def trained(self) -> bool:
        """Whether training, evaluation included, is done."""
        return self.because(ConditionType.RUNNING) == status.COMPLETED

    def after(self, moment: datetime | None, seconds: float) -> float:
        """Seconds that are left until ``seconds`` after ``moment``; 0 when that is past or unknown."""
        return 0.0 if moment is None else max(0.0, (moment + timedelta(seconds=seconds) - self.now).total_seconds())

    # What to do.

    def apply(self, *objects: Manifest) -> None:
        """Have these objects."""
        self._apply.extend(objects)

    def create(self, job: Manifest) -> None:
        """Start a Job."""
        self._create.append(job)

    def delete(self, kind: str, name: str) -> None:
        """Have no such object."""
        self._delete.append(Delete(kind, name))

    def requeue(self, seconds: float) -> None:
        """Look again after ``seconds``, or sooner if another stage says so."""
        seconds = max(seconds, 1.0)
        self._requeue = seconds if self._requeue is None else min(self._requeue, seconds)

    # What to say.

    def update(self, **fields: Any) -> None:
        """Set fields of the status."""
        self._fields.update(fields)

    def tell(self, message: str) -> None:
        """Say in one sentence where the run stands and what to do next."""
        self._fields["message"] = shorten(sentence(message), 2048)

    def set(self, kind: ConditionType, value: bool | None, reason: str, message: str = "") -> None:
        """Set a condition; None is Unknown. An Event tells of every change of its status or reason."""
        text = _TEXT[value]
        message = shorten(message, 1024)
        before = self._conditions.get(kind)
        same = before is not None and before.status == text
        self._conditions[kind] = Condition(
            type=kind,
            status=text,
            reason=reason,
            message=message,
            last_transition_time=before.last_transition_time if before and same else timestamp(self.now),
            observed_generation=self.run.generation,
        )

    def event(self, reason: str, message: str, *, warning: bool = False) -> None:
        """Tell of something that is no change of a condition."""
        self._events.append(Event("Warning" if warning else "Normal", reason, shorten(message or reason, 1024)))

    def fail(self, failure: Failure) -> None:
        """The run has failed for good; what is left is to archive what there is."""
        self.update(failure=failure)
        self.set(ConditionType.SUCCEEDED, False, failure.reason, failure.message)

    def plan(self) -> Plan:
        """Finish the draft."""
        values = {name: getattr(self.run.status, name) for name in DPORunStatus.model_fields}
        conditions = tuple(self._conditions[kind] for kind in ConditionType if kind in self._conditions)
        values |= self._fields | {"observed_generation": self.run.generation, "conditions": conditions}
        values["phase"] = status.phase(self._conditions, deleting=self.run.deleting)
        values["summary"] = status.summary(self.run, values)
        return Plan(
            apply=tuple(self._apply),
            create=tuple(self._create),
            delete=tuple(self._delete),
            status=DPORunStatus.model_validate(values),
            events=(*_transitions(self.run, self._conditions), *self._events),
            delete_run=self.delete_run,
            release=self.release,
            requeue_seconds=self._requeue,
        )


def _transitions(run: Run, conditions: Mapping[ConditionType, Condition]) -> list[Event]:
    """Tell of every condition whose status or reason has changed; of one reason only once."""
    before = {condition.type: (condition.status, condition.reason) for condition in run.status.conditions}
    changed = [
        condition
        for kind in ConditionType
        if (condition := conditions.get(kind)) is not None
        and condition.reason not in QUIET
        and (condition.status, condition.reason) != before.get(kind)
    ]
    by_reason = {condition.reason: condition for condition in reversed(changed)}
    return [
        Event(
            "Warning" if reason in WARNINGS else "Normal",
            reason,
            condition.message or f"{condition.type} is {condition.status}",
        )
        for reason, condition in reversed(by_reason.items())
    ]
