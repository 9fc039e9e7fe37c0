"""The stories of `tests/operator/lifecycle/cases`, played: what the operator decides at every step."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from dporun_api.results import Outcome, Progress
from dporun_api.v1alpha1.status import DPORunStatus
from dporun_operator.cache import slim
from dporun_operator.lifecycle.archive import remember_job
from dporun_operator.lifecycle.decide import decide
from dporun_operator.lifecycle.plan import Plan
from dporun_operator.observed import Observed
from dporun_operator.run import Run
from dporun_testing.builders import NOW, SETTINGS, Body, job, merge, pod, run_body
from dporun_testing.paths import TESTS

STORIES = sorted((TESTS / "operator/lifecycle/cases").glob("*.yaml"))
STEP = {
    "when",
    "after",
    "spec",
    "annotations",
    "deleting",
    "namespace_terminates",
    "volume",
    "jobs",
    "pods",
    "outcome",
    "progress",
    "source",
    "refused_pods",
    "refused_objects",
    "queue",
    "then",
}


def title(path: Path) -> str:
    """What a story is about."""
    return str(_read(path)["story"])


@dataclass(frozen=True)
class Moment:
    """One step of a story."""

    step: Mapping[str, Any]
    spec: Body
    metadata: Mapping[str, Any]
    status: Body
    """As it was written before."""
    observed: Observed
    now: datetime

    @property
    def when(self) -> str:
        """What has happened."""
        return str(self.step["when"])

    def decide(self, status: Body | None = None) -> Plan:
        """What the operator decides, from the status written before or from another one."""
        run = Run.parse(run_body(self.spec, status=self.status if status is None else status, **self.metadata))
        return decide(run, self.observed, SETTINGS, self.now)


def play(path: Path) -> Iterator[tuple[Moment, Plan, Body]]:
    """Every step of a story, what is decided then, and the status that is written for it."""
    story = _read(path)
    spec, status, now, deleting, deleted_at, generation = story.get("spec", {}), {}, NOW, False, NOW, 1
    for step in story["steps"]:
        assert set(step) <= STEP, f"unknown words in {step['when']}"
        now += timedelta(seconds=step.get("after", 10))
        spec = merge(spec, step.get("spec", {}))
        generation += "spec" in step
        if step.get("deleting", False) and not deleting:
            deleting, deleted_at = True, now
        metadata = {
            "deleting": deleting,
            "deleted_at": deleted_at,
            "generation": generation,
            "annotations": step.get("annotations", {}),
        }
        run = Run.parse(run_body(spec, status=status, **metadata))
        moment = Moment(step, spec, metadata, status, _observed(step, run, now), now)
        plan = moment.decide()
        status = _written(plan).model_dump(mode="json", by_alias=True, exclude_none=True)
        yield moment, plan, status


def _read(path: Path) -> dict[str, Any]:
    story: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return story


def _observed(step: Mapping[str, Any], run: Run, now: datetime) -> Observed:
    seen = Observed.of(
        map(slim, _children(step, now)),
        run,
        progress=Progress.model_validate(step["progress"]) if "progress" in step else None,
        namespace_terminates=step.get("namespace_terminates", False),
        volume=step.get("volume"),
        source=run_body(**{"name": "source", **step["source"]}) if "source" in step else None,
    )
    return replace(
        seen,
        refused_pods=step.get("refused_pods", {}),
        refused_objects=step.get("refused_objects", {}),
        queue_message=step.get("queue"),
    )


def _written(plan: Plan) -> DPORunStatus:
    """The status that is written when the plan has been carried out."""
    status = plan.status
    for manifest in plan.create:
        labels = manifest["metadata"]["labels"]
        uid = job(labels["app.kubernetes.io/component"], int(labels["dporun.io/attempt"]))["metadata"]["uid"]
        status = remember_job(status, {**manifest, "metadata": {**manifest["metadata"], "uid": uid}})
    return status


def _children(step: Mapping[str, Any], now: datetime) -> Iterator[Body]:
    for kind, build in (("jobs", job), ("pods", pod)):
        for name, state in step.get(kind, {}).items():
            component, _, number = name.partition("-")
            options = dict(state) if isinstance(state, dict) else {"state": state}
            attempt, _, index = number.partition("/")
            if index:
                options["index"] = int(index)
            outcome = step.get("outcome", {}).get(name)
            if kind == "pods" and outcome is not None:
                options["message"] = Outcome.model_validate(outcome).to_json(exclude_none=True)
            yield build(component, int(attempt or 1), at=now, **options)
