"""The stories in `cases`."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from dporun_api.results import Outcome, Progress
from dporun_api.v1alpha1.status import ConditionType, DPORunStatus
from dporun_operator.cache import slim
from dporun_operator.lifecycle.archive import remember_job
from dporun_operator.lifecycle.decide import decide
from dporun_operator.lifecycle.plan import Plan
from dporun_operator.observed import Observed
from dporun_operator.run import Run
from dporun_testing.builders import NOW, SETTINGS, job, merge, pod, run_body

CASES = sorted((Path(__file__).parent / "cases").glob("*.yaml"))
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
SENTENCE = re.compile(r"(?:[A-Z0-9]|\S+[./]\S)\S*(?: \S+)*", re.DOTALL)
"""It begins with a capital letter, or with the name of a file or field."""
UNFINISHED = re.compile(r"\b(None|Reason|null)\b| is (True|False|Unknown)$|\.\.|: ?$|  ")
"""Words of a program that were meant for people, or pieces that were joined badly."""
THEN = {
    "retain",
    "unprotect",
    "create",
    "delete",
    "apply",
    "objects",
    "status",
    "conditions",
    "says",
    "events",
    "release",
}


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_story(path: Path) -> None:
    story = yaml.safe_load(path.read_text(encoding="utf-8"))
    spec, status, now, deleting, deleted_at, generation = story.get("spec", {}), {}, NOW, False, NOW, 1
    for step in story["steps"]:
        assert set(step) <= STEP, f"unknown words in {step['when']}"
        assert set(step["then"]) <= THEN, f"unknown words in {step['when']}"
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
        progress = Progress.model_validate(step["progress"]) if "progress" in step else None
        run = Run.parse(run_body(spec, status=status, **metadata))
        terminates = step.get("namespace_terminates", False)
        source = run_body(**{"name": "source", **step["source"]}) if "source" in step else None
        seen = Observed.of(
            map(slim, children(step, now)), run, progress=progress, namespace_terminates=terminates, source=source
        )
        observed = replace(
            seen,
            refused_pods=step.get("refused_pods", {}),
            refused_objects=step.get("refused_objects", {}),
            volume=step.get("volume"),
            queue_message=step.get("queue"),
        )
        plan = decide(run, observed, SETTINGS, now)
        check(step["when"], plan, step["then"])
        check_words(step["when"], plan)
        reworded = Run.parse(run_body(spec, status=reword(status), **metadata))
        assert actions(decide(reworded, observed, SETTINGS, now)) == actions(plan), f"{step['when']}: words steer"
        status = written(plan).model_dump(mode="json", by_alias=True, exclude_none=True)
        again = decide(Run.parse(run_body(spec, status=status, **metadata)), observed, SETTINGS, now)
        if not (plan.create or plan.release):
            assert again.status == plan.status, step["when"]
            repeated = [event for event in again.events if event.reason != "VolumeKept"]
            assert not repeated, f"{step['when']}: told twice: {repeated}"


def written(plan: Plan) -> DPORunStatus:
    """The status that is written when the plan has been carried out."""
    status = plan.status
    for manifest in plan.create:
        labels = manifest["metadata"]["labels"]
        uid = job(labels["app.kubernetes.io/component"], int(labels["dporun.io/attempt"]))["metadata"]["uid"]
        status = remember_job(status, {**manifest, "metadata": {**manifest["metadata"], "uid": uid}})
    return status


def reword(status: dict[str, Any]) -> dict[str, Any]:
    """The same status in the words of another version: reasons and messages are for people and tools."""
    conditions = [{**c, "reason": "Reworded", "message": "In other words."} for c in status.get("conditions", ())]
    return {**status, "message": "In other words.", **({"conditions": conditions} if conditions else {})}


def actions(plan: Plan) -> tuple[Any, ...]:
    done = (plan.retain, plan.apply, plan.create, plan.optional, plan.delete, plan.unprotect)
    return *done, plan.delete_run, plan.release


def children(step: dict[str, Any], now: Any) -> Iterator[dict[str, Any]]:
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


def check(when: str, plan: Plan, then: dict[str, Any]) -> None:
    planned = {f"{o['kind']}/{o['metadata']['name']}": o for o in (*plan.apply, *plan.create, *plan.optional)}
    created = [f"{o['kind']}/{o['metadata']['name']}" for o in plan.create]
    deleted = [f"{target.kind}/{target.name}" for target in plan.delete]
    status = plan.status.model_dump(mode="json", by_alias=True, exclude_none=True)
    assert {volume.volume: volume.annotations for volume in plan.retain} == then.get("retain", {}), when
    let_go = {claim.claim: "even if deleted" if claim.even_if_deleted else "unless deleted" for claim in plan.unprotect}
    assert "unprotect" not in then or let_go == then["unprotect"], when
    assert created == then.get("create", []), when
    assert deleted == then.get("delete", []), when
    assert plan.release == then.get("release", False), when
    assert set(then.get("apply", [])) <= set(planned), when
    for name, part in then.get("objects", {}).items():
        contains(planned[name], part, f"{when}: {name}")
    contains(status, then.get("status", {}), when)
    conditions = {c["type"]: f"{c['status']} {c['reason']}" for c in status.get("conditions", ())}
    contains(conditions, then.get("conditions", {}), when)
    assert then.get("says", "") in status.get("message", ""), when
    told = [event.reason for event in plan.events]
    assert set(then.get("events", [])) <= set(told), f"{when}: told of {told}"


def check_words(when: str, plan: Plan) -> None:
    """Whatever is said is said to people, in sentences, and every condition exists and has something to say."""
    said = [event.message for event in plan.events]
    said += [plan.status.message, *(condition.message for condition in plan.status.conditions)]
    assert [c.type for c in plan.status.conditions] == list(ConditionType), when
    for words in said:
        assert SENTENCE.fullmatch(words or ""), f"{when}: {words!r} is no sentence"
        assert not UNFINISHED.search(words or ""), f"{when}: {words!r}"


def contains(whole: Any, part: Any, where: str) -> None:
    """Every field of ``part`` is in ``whole``; a null means absent; a list is compared entry by entry."""
    if isinstance(part, dict):
        assert isinstance(whole, dict), f"{where}: {whole!r} is no object"
        for key, value in part.items():
            if value is None:
                assert key not in whole, f"{where}.{key} is there: {json.dumps(whole[key])}"
            else:
                assert key in whole, f"{where}.{key} is missing in {json.dumps(whole)[:600]}"
                contains(whole[key], value, f"{where}.{key}")
    elif isinstance(part, list):
        assert isinstance(whole, list), where
        assert len(whole) == len(part), f"{where}: {whole!r}"
        for index, (ours, theirs) in enumerate(zip(whole, part, strict=True)):
            contains(ours, theirs, f"{where}[{index}]")
    else:
        assert whole == part, f"{where}: {whole!r} is not {part!r}"
