"""The stories in `cases`."""

import json
from pathlib import Path
from typing import Any

import pytest

from dporun_operator.lifecycle.plan import Plan
from dporun_testing.stories import STORIES, play
from dporun_testing.words import not_for_people

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
    "expires",
}


@pytest.mark.parametrize("path", STORIES, ids=lambda path: path.stem)
def test_story(path: Path) -> None:
    for moment, plan, status in play(path):
        when, then = moment.when, moment.step["then"]
        assert set(then) <= THEN, f"unknown words in {when}"
        check(when, plan, then)
        assert not_for_people(plan) == [], when
        assert actions(moment.decide(reword(moment.status))) == actions(plan), f"{when}: words steer"
        again = moment.decide(status)
        if not (plan.create or plan.release):
            assert again.status == plan.status, when
            repeated = [event for event in again.events if event.reason != "VolumeKept"]
            assert not repeated, f"{when}: told twice: {repeated}"


def reword(status: dict[str, Any]) -> dict[str, Any]:
    """The same status in the words of another version: reasons and messages are for people and tools."""
    conditions = [{**c, "reason": "Reworded", "message": "In other words."} for c in status.get("conditions", ())]
    return {**status, "message": "In other words.", **({"conditions": conditions} if conditions else {})}


def actions(plan: Plan) -> tuple[Any, ...]:
    done = (plan.retain, plan.apply, plan.create, plan.optional, plan.delete, plan.unprotect)
    return *done, plan.delete_run, plan.release


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
    assert plan.delete_run == then.get("expires", False), when
    assert set(then.get("apply", [])) <= set(planned), when
    for name, part in then.get("objects", {}).items():
        contains(planned[name], part, f"{when}: {name}")
    contains(status, then.get("status", {}), when)
    conditions = {c["type"]: f"{c['status']} {c['reason']}" for c in status.get("conditions", ())}
    contains(conditions, then.get("conditions", {}), when)
    assert then.get("says", "") in status.get("message", ""), when
    told = [event.reason for event in plan.events]
    assert set(then.get("events", [])) <= set(told), f"{when}: told of {told}"


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
