"""Draft: the plan in the making. The steps of a run add to it, one after the other."""

from collections.abc import Mapping
from datetime import datetime, timedelta

from dporun_api.results import Failure
from dporun_api.text import capitalise, sentence, shorten
from dporun_api.v1alpha1.reasons import Reason, traits_of
from dporun_api.v1alpha1.status import Condition, ConditionType
from dporun_operator.lifecycle import reports, summary
from dporun_operator.lifecycle.conditions import INITIAL, complete, transition
from dporun_operator.lifecycle.plan import Delete, Event, Plan, Retain, Unprotect
from dporun_operator.observed import Observed
from dporun_operator.run import Manifest, Run
from dporun_operator.settings import Settings


class Draft:
    """Collects actions and the new status.

    Attributes:
        run: the resource, with the status last written.
        observed: its Jobs, Pods and progress.
        settings: the operator's.
        now: the time.
        status: the status in the making. It starts as a copy of the one last written, so a field that no step
            assigns keeps its value. Conditions, phase and summary are derived: set conditions by ``set_condition``.
        delete_run: whether the run is to be deleted.
        release: whether our finalizer may be taken off.

    """

    def __init__(self, run: Run, observed: Observed, settings: Settings, now: datetime):
        self.run = run
        self.observed = observed
        self.settings = settings
        self.now = now
        self.status = run.status.model_copy()
        self.delete_run = False
        self.release = False
        known = {condition.type: condition for condition in run.status.conditions}
        every = complete(known, generation=run.generation, now=now)
        self._conditions = {condition.type: condition for condition in every}
        # A run that finished under an older release stays as it is: a condition that is new is no reason to write.
        finished = self.is_true(ConditionType.FINISHED)
        self._before = run.status.model_copy(update={"conditions": every}) if finished else run.status
        self._retain: list[Retain] = []
        self._apply: list[Manifest] = []
        self._create: list[Manifest] = []
        self._optional: list[Manifest] = []
        self._delete: list[Delete] = []
        self._unprotect: list[Unprotect] = []
        self._events: list[Event] = []
        self._requeue: float | None = None

    # What is known so far.

    def condition(self, kind: ConditionType) -> Condition:
        """The newest state of a condition."""
        return self._conditions[kind]

    def is_true(self, kind: ConditionType) -> bool:
        """Whether a condition is True."""
        return self._has_status(kind, "True")

    def is_false(self, kind: ConditionType) -> bool:
        """Whether a condition is False, not just unknown."""
        return self._has_status(kind, "False")

    @property
    def failed(self) -> bool:
        """Whether the run has failed for good."""
        return self.is_false(ConditionType.SUCCEEDED)

    @property
    def started(self) -> bool:
        """Whether training may have begun, so that there may be something to keep; any trace of it counts."""
        status = self.status
        traces = (status.attempt, status.progress, status.best_checkpoint, status.evaluation)
        return self.trained or any(traces)

    @property
    def trained(self) -> bool:
        """Whether training, evaluation included, is done; it stays so whatever becomes of the run then."""
        return self.status.training_completion_time is not None

    def seconds_left(self, since: datetime | None, seconds: float) -> float:
        """Seconds that are left until ``seconds`` after ``since``; 0 when that is past or unknown."""
        return 0.0 if since is None else max(0.0, (since + timedelta(seconds=seconds) - self.now).total_seconds())

    # What to do.

    def apply(self, manifest: Manifest) -> None:
        """Make the cluster have this object."""
        self._apply.append(manifest)

    def apply_if_allowed(self, manifest: Manifest) -> None:
        """Make the cluster have this object, which the run can do without."""
        self._optional.append(manifest)

    def create(self, job: Manifest) -> None:
        """Start a Job."""
        self._create.append(job)

    def delete(self, kind: str, name: str) -> None:
        """Delete an object, if it exists."""
        uid = next((job.uid for job in self.observed.jobs if kind == "Job" and job.name == name), None)
        target = Delete(kind, name, uid)
        if target not in self._delete:
            self._delete.append(target)

    def unprotect(self, claim: str, *, even_if_deleted: bool, kept: str | None = None) -> None:
        """Take our finalizer off a claim."""
        self._unprotect.append(Unprotect(claim, even_if_deleted, kept))

    def retain(self, volume: Retain) -> None:
        """Keep a PersistentVolume whatever becomes of its claim."""
        self._retain.append(volume)

    def requeue(self, seconds: float) -> None:
        """Look again after ``seconds``, or sooner if another step says so."""
        seconds = max(seconds, 1.0)
        self._requeue = seconds if self._requeue is None else min(self._requeue, seconds)

    # What to report.

    def set_message(self, message: str) -> None:
        """Say in one sentence where the run stands and what to do next."""
        self.status.message = shorten(sentence(message), 2048)

    def set_condition(self, kind: ConditionType, value: bool | None, reason: Reason, message: str) -> None:
        """Set a condition; None is Unknown. An Event reports every change of its status or reason."""
        self._conditions[kind] = transition(
            self._conditions[kind],
            kind,
            value,
            reason,
            capitalise(message),
            generation=self.run.generation,
            now=self.now,
        )

    def reset_condition(self, kind: ConditionType) -> None:
        """Set a condition as it is before anything is known."""
        self.set_condition(kind, *INITIAL[kind])

    def add_event(self, reason: Reason, message: str) -> None:
        """Report something that is no change of a condition."""
        self._events.append(Event(reason.traits.event or "Normal", reason, shorten(message, 1024)))

    def fail(self, failure: Failure) -> None:
        """Let the run fail for good; what is left is to archive what there is."""
        self.status.failure = failure
        self.set_condition(ConditionType.SUCCEEDED, False, failure.reason, failure.message)

    def plan(self) -> Plan:
        """Derive what conditions and numbers imply (phase, columns, Events) and put everything into a plan."""
        status = self.status
        status.observed_generation = self.run.generation
        status.conditions = tuple(self._conditions[kind] for kind in ConditionType)
        status.phase = summary.phase(self._conditions, deleting=self.run.deleting)
        status.summary = summary.columns(self.run.spec, status)
        if status == self._before or not reports.is_worth_writing(self.run.status, status):
            status = self.run.status
        return Plan(
            retain=tuple(self._retain),
            apply=tuple(self._apply),
            create=tuple(self._create),
            optional=tuple(self._optional),
            delete=tuple(self._delete),
            unprotect=tuple(self._unprotect),
            status=status,
            events=(*_transitions(self.run, self._conditions), *self._events),
            answered=self.run.asks_to_archive,
            delete_run=self.delete_run,
            release=self.release,
            requeue_seconds=self._requeue,
        )

    def _has_status(self, kind: ConditionType, status: str) -> bool:
        return self._conditions[kind].status == status


def _transitions(run: Run, conditions: Mapping[ConditionType, Condition]) -> list[Event]:
    """An Event for every condition whose status or reason has changed; of one reason only one."""
    before = {condition.type: (condition.status, condition.reason) for condition in run.status.conditions}
    changed = [
        condition for kind, condition in conditions.items() if (condition.status, condition.reason) != before.get(kind)
    ]
    by_reason = {condition.reason: condition for condition in reversed(changed)}
    return [
        Event(type, reason, condition.message)
        for reason, condition in reversed(by_reason.items())
        if (type := traits_of(reason).event) is not None  # noqa: A001  the field's name
    ]
