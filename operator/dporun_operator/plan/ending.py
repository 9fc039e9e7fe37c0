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
from dporun_api.text import shorten
from dporun_api.v1alpha1.reasons import Reason
from dporun_api.v1alpha1.spec import DPORunSpec
from dporun_operator.plan.observed import Job, Pod

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
    """What there is to judge a failed Job by."""

    job: Job
    pods: Sequence[Pod]
    outcomes: Mapping[str, Outcome]
    """By pod."""
    spec: DPORunSpec


def of(job: Job, pods: Sequence[Pod], spec: DPORunSpec) -> Ending:
    """Judge how a finished ``job`` ended, by the evidence of its ``pods``."""
    outcomes = {pod.name: outcome for pod in pods if (outcome := read_outcome(pod)) is not None}
    first = next((outcomes[pod.name] for pod in pods if pod.index == 0 and pod.name in outcomes), None)
    if job.succeeded and first is not None and first.state is OutcomeState.SUCCEEDED:
        return Ending(outcome=first)
    evidence = Evidence(job, pods, outcomes, spec)
    verdict = next(verdict for rule in _RULES if (verdict := rule(evidence)) is not None)
    if isinstance(verdict, str):
        return Ending(outcome=first, preempted=verdict)
    return Ending(outcome=first, failure=verdict)


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
    return advice.hint(reason, spec.training, spec.dpo, spec.lora, processes=processes)


def _told(evidence: Evidence) -> Failure | None:
    return _words(evidence, lambda reason: reason not in {Reason.PREEMPTED, Reason.RENDEZVOUS})


def _lost_contact(evidence: Evidence) -> Failure | None:
    """Words of a pod that missed another one; how that one ended says more."""
    return _words(evidence, lambda reason: reason is Reason.RENDEZVOUS)


def _words(evidence: Evidence, wanted: Callable[[Reason], bool]) -> Failure | None:
    for pod in evidence.pods:
        outcome = evidence.outcomes.get(pod.name)
        failure = outcome.failure if outcome else None
        if failure is not None and wanted(failure.reason):
            return failure.model_copy(
                update={
                    "pod": failure.pod or pod.name,
                    "exit_code": failure.exit_code if failure.exit_code is not None else pod.main.exit_code,
                    "hint": failure.hint or hint(failure.reason, evidence.spec),
                }
            )
    return None


def _done_but_silent(evidence: Evidence) -> Failure | None:
    if not evidence.job.succeeded:
        return None
    message = "The pod ended with exit code 0 but did not say that it was done."
    return _failure(Reason.TRAINER_ERROR, message, evidence.spec, next(iter(evidence.pods), None))


def _saved(evidence: Evidence) -> str | None:
    for pod in evidence.pods:
        outcome = evidence.outcomes.get(pod.name)
        if pod.main.exit_code == ExitCode.PREEMPTED or (outcome and outcome.state is OutcomeState.PREEMPTED):
            by = f" ({pod.disruption})" if pod.disruption else ""
            return f"pod {pod.name} was stopped and saved a checkpoint{by}"
    return None


def _disrupted(evidence: Evidence) -> str | None:
    pod = next((pod for pod in evidence.pods if pod.disruption), None)
    if pod is None:
        return None
    if pod.disruption in _LOST:
        return f"the node of pod {pod.name} was lost ({pod.disruption})"
    return f"pod {pod.name} was stopped by Kubernetes ({pod.disruption})"


def _disrupted_says_the_job(evidence: Evidence) -> str | None:
    message = evidence.job.message
    told = "DisruptionTarget" in message or _exit_code(message) == ExitCode.PREEMPTED
    return shorten(message, 256) if told else None


def _killed(evidence: Evidence) -> Failure | None:
    pod = next((pod for pod in evidence.pods if pod.main.reason == "OOMKilled"), None)
    if pod is None:
        return None
    message = f"Pod {pod.name} reached its memory limit and the kernel ended it."
    return _failure(Reason.HOST_OUT_OF_MEMORY, message, evidence.spec, pod)


def _evicted(evidence: Evidence) -> Failure | None:
    pod = next((pod for pod in evidence.pods if pod.reason == "Evicted"), None)
    if pod is None:
        return None
    message = pod.message or f"Pod {pod.name} was evicted."
    reason = Reason.DISK_FULL if "ephemeral-storage" in message else Reason.NODE_LOST
    return _failure(reason, message, evidence.spec, pod)


def _crashed(evidence: Evidence) -> Failure | None:
    """A pod that ended by itself without a word; the others were stopped for it, and say that they were preempted."""
    ended = (pod for pod in evidence.pods if pod.name not in evidence.outcomes and not pod.disruption)
    pod = next((pod for pod in ended if pod.main.exit_code and pod.main.exit_code not in _STOPPED), None)
    return None if pod is None else _silent(evidence, pod.main.exit_code or 0, pod)


def _exited(evidence: Evidence) -> Failure | None:
    pod = next((pod for pod in evidence.pods if pod.main.exit_code), None)
    code = pod.main.exit_code if pod else _exit_code(evidence.job.message)
    return None if code is None else _silent(evidence, code, pod)


def _silent(evidence: Evidence, code: int, pod: Pod | None) -> Failure:
    reason = Reason.of_exit_code(code)
    message = f"The container ended with exit code {code} and did not say why; its log may."
    return _failure(reason, message, evidence.spec, pod, code)


def _gone(evidence: Evidence) -> Failure:
    message = evidence.job.message or "The pod is gone without a trace."
    return _failure(Reason.NODE_LOST, message, evidence.spec)


_RULES: tuple[Callable[[Evidence], Failure | str | None], ...] = (
    # the first rule with something to say decides: a Failure, or why the attempt was preempted
    _told,
    _done_but_silent,
    _killed,
    _evicted,
    _crashed,
    _saved,
    _disrupted,
    _disrupted_says_the_job,
    _lost_contact,
    _exited,
    _gone,
)


def _failure(
    reason: Reason, message: str, spec: DPORunSpec, pod: Pod | None = None, exit_code: int | None = None
) -> Failure:
    return Failure(
        reason=reason,
        message=shorten(message, 1024),
        hint=hint(reason, spec),
        pod=pod.name if pod else None,
        exit_code=exit_code if exit_code is not None or pod is None else pod.main.exit_code,
    )


def _exit_code(message: str) -> int | None:
    """The exit code in a Job's condition: ``Container trainer for pod P failed with exit code 66 matching ...``."""
    found = re.search(r"exit code (\d+)", message)
    return int(found.group(1)) if found else None
