"""How an attempt ended: rules from the most to the least telling evidence, each beside what it concludes.

The exit code of a pod alone is not believed: a process that dies after SIGTERM may exit with 0. Success needs the
outcome that the launcher writes as its last act.
"""

import re
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from dporun_api import advice
from dporun_api.pod import ExitCode
from dporun_api.results import Failure, Outcome, OutcomeState
from dporun_api.text import sentence, shorten
from dporun_api.v1alpha1.reasons import Reason
from dporun_api.v1alpha1.spec import DPORunSpec
from dporun_operator.names import Component
from dporun_operator.observed import Job, Pod

_STOPPED = {ExitCode.PREEMPTED, 128 + signal.SIGKILL, 128 + signal.SIGTERM}
"""Exit codes of a pod that may have been stopped because another one failed."""

_LOST = {"DeletionByPodGC", "DeletionByTaintManager", "DeletionByTaintEvictionController"}


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How a Job ended."""

    outcome: Outcome | None = None
    """What its pod said last; of the first pod where there are several."""
    failure: Failure | None = None
    """Why it failed; None when it succeeded or was preempted."""
    preempted: str | None = None
    """Why it was stopped from outside."""

    @property
    def succeeded(self) -> bool:
        """Done, and said so."""
        return self.failure is None and self.preempted is None


@dataclass(frozen=True)
class Evidence:
    """What there is to judge a finished Job by."""

    job: Job
    pods: Sequence[Pod]
    outcomes: Mapping[str, Outcome]
    """By pod."""
    spec: DPORunSpec

    @property
    def first(self) -> Outcome | None:
        """Outcome of the first pod."""
        outcomes = (self.outcomes[pod.name] for pod in self.pods if pod.index == 0 and pod.name in self.outcomes)
        return next(outcomes, None)


def judge_ending(job: Job, pods: Sequence[Pod], spec: DPORunSpec) -> Ending:
    """Judge how a finished ``job`` ended, by the evidence of its ``pods``."""
    outcomes = {pod.name: outcome for pod in pods if (outcome := read_outcome(pod)) is not None}
    evidence = Evidence(job, pods, outcomes, spec)
    return next(ending for rule in _RULES if (ending := rule(evidence)) is not None)


def read_outcome(pod: Pod) -> Outcome | None:
    """Read the termination message of a pod; None when it is not an Outcome (untrusted: anything may be there)."""
    if pod.main.exit_code is None or not pod.main.message:
        return None
    try:
        return Outcome.model_validate_json(pod.main.message, extra="ignore")  # a newer image may say more
    except ValidationError:
        return None


def hint(reason: Reason, spec: DPORunSpec) -> str | None:
    """What to do about a failure, in terms of this run's own manifest."""
    processes = spec.distributed.nodes * spec.processes_per_node
    return advice.hint(reason, spec.training, spec.dpo, quantization=spec.model.quantization, processes=processes)


def _succeeded(evidence: Evidence) -> Ending | None:
    first = evidence.first
    done = evidence.job.succeeded and first is not None and first.state is OutcomeState.SUCCEEDED
    return Ending(outcome=first) if done else None


def _explained(evidence: Evidence) -> Ending | None:
    """A pod said itself why it failed; where another one was disrupted, an unforeseen error may be due to that."""
    disrupted = [pod for pod in evidence.pods if pod.disruption]

    def accepts(pod: Pod, reason: Reason) -> bool:
        due_to_another = reason is Reason.TRAINER_ERROR and any(other is not pod for other in disrupted)
        return reason not in {Reason.PREEMPTED, Reason.RENDEZVOUS} and not due_to_another

    return _first_failure(evidence, accepts)


def _lost_contact(evidence: Evidence) -> Ending | None:
    """A pod missed another one; how that one ended says more, so this comes late."""
    return _first_failure(evidence, lambda _, reason: reason is Reason.RENDEZVOUS)


def _first_failure(evidence: Evidence, accepts: Callable[[Pod, Reason], bool]) -> Ending | None:
    for pod in evidence.pods:
        outcome = evidence.outcomes.get(pod.name)
        failure = outcome.failure if outcome else None
        if failure is not None and accepts(pod, failure.reason):
            more = {
                "pod": failure.pod or pod.name,
                "exit_code": failure.exit_code if failure.exit_code is not None else pod.main.exit_code,
                "hint": failure.hint or hint(failure.reason, evidence.spec),
            }
            return Ending(outcome=evidence.first, failure=failure.model_copy(update=more))
    return None


def _unheard(evidence: Evidence) -> Ending | None:
    """The pods were deleted before anyone heard what they said, and the Job does not tell of a failure."""
    if evidence.pods or not (evidence.job.succeeded or evidence.job.finished_at is None):
        return None
    return _preempted(evidence, "the pods are gone, and with them what they said at their end")


def _done_but_silent(evidence: Evidence) -> Ending | None:
    if not evidence.job.succeeded:
        return None
    message = "The pod ended with exit code 0 but did not say that it was done."
    return _failed(evidence, Reason.TRAINER_ERROR, message, next(iter(evidence.pods), None))


def _killed(evidence: Evidence) -> Ending | None:
    pod = next((pod for pod in evidence.pods if pod.main.reason == "OOMKilled"), None)
    if pod is None:
        return None
    message = f"Pod {pod.name} reached its memory limit and the kernel ended it."
    return _failed(evidence, Reason.HOST_OUT_OF_MEMORY, message, pod)


def _evicted(evidence: Evidence) -> Ending | None:
    pod = next((pod for pod in evidence.pods if pod.reason == "Evicted"), None)
    if pod is None:
        return None
    message = pod.message or f"Pod {pod.name} was evicted."
    reason = Reason.DISK_FULL if "ephemeral-storage" in message else Reason.NODE_LOST
    return _failed(evidence, reason, message, pod)


def _crashed(evidence: Evidence) -> Ending | None:
    """A pod ended by itself without a word; the others were stopped for it, and say that they were preempted."""
    ended = (pod for pod in evidence.pods if pod.name not in evidence.outcomes and not pod.disruption)
    pod = next((pod for pod in ended if pod.main.exit_code and pod.main.exit_code not in _STOPPED), None)
    return None if pod is None else _silent(evidence, pod.main.exit_code or 0, pod)


def _saved(evidence: Evidence) -> Ending | None:
    for pod in evidence.pods:
        outcome = evidence.outcomes.get(pod.name)
        if pod.main.exit_code == ExitCode.PREEMPTED or (outcome and outcome.state is OutcomeState.PREEMPTED):
            by = f" ({pod.disruption})" if pod.disruption else ""
            if outcome and outcome.message and outcome.step is None:
                return _preempted(evidence, f"pod {pod.name} ended{by}: {outcome.message}")
            saved = " and saved a checkpoint" if evidence.job.component == Component.TRAIN else ""
            return _preempted(evidence, f"pod {pod.name} was stopped{saved}{by}")
    return None


def _disrupted(evidence: Evidence) -> Ending | None:
    pod = next((pod for pod in evidence.pods if pod.disruption), None)
    if pod is None:
        return None
    if pod.disruption in _LOST:
        return _preempted(evidence, f"the node of pod {pod.name} was lost ({pod.disruption})")
    return _preempted(evidence, f"pod {pod.name} was stopped by Kubernetes ({pod.disruption})")


def _disrupted_says_the_job(evidence: Evidence) -> Ending | None:
    message = evidence.job.message
    disrupted = "DisruptionTarget" in message or _exit_code(message) == ExitCode.PREEMPTED
    return _preempted(evidence, shorten(message, 256)) if disrupted else None


def _exited(evidence: Evidence) -> Ending | None:
    pod = next((pod for pod in evidence.pods if pod.main.exit_code), None)
    code = pod.main.exit_code if pod else _exit_code(evidence.job.message)
    return None if code is None else _silent(evidence, code, pod)


def _vanished(evidence: Evidence) -> Ending:
    message = "The pod no longer exists and has left no word."
    if evidence.job.message:
        message += f" Its Job says: {sentence(evidence.job.message)}"
    return _failed(evidence, Reason.NODE_LOST, message)


_RULES: tuple[Callable[[Evidence], Ending | None], ...] = (
    # the first rule with something to say decides
    _succeeded,
    _explained,
    _unheard,
    _done_but_silent,
    _killed,
    _evicted,
    _crashed,
    _saved,
    _disrupted,
    _disrupted_says_the_job,
    _lost_contact,
    _exited,
    _vanished,
)


def _silent(evidence: Evidence, code: int, pod: Pod | None) -> Ending:
    message = f"The container ended with exit code {code} and did not say why; its log may."
    return _failed(evidence, Reason.of_exit_code(code), message, pod, exit_code=code)


def _preempted(evidence: Evidence, why: str) -> Ending:
    return Ending(outcome=evidence.first, preempted=why)


def _failed(
    evidence: Evidence, reason: Reason, message: str, pod: Pod | None = None, *, exit_code: int | None = None
) -> Ending:
    failure = Failure(
        reason=reason,
        message=shorten(message, 1024),
        hint=hint(reason, evidence.spec),
        pod=pod.name if pod else None,
        exit_code=exit_code if exit_code is not None or pod is None else pod.main.exit_code,
    )
    return Ending(outcome=evidence.first, failure=failure)


def _exit_code(message: str) -> int | None:
    """The exit code in a Job's condition: ``Container trainer for pod P failed with exit code 66 matching ...``."""
    found = re.search(r"exit code (\d+)", message)
    return int(found.group(1)) if found else None
