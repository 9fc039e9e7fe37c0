"""Children of a run are known by who made them, not by a label alone."""

from typing import Any

import pytest

from dporun_operator.cache import slim
from dporun_operator.observed import Observed
from dporun_testing.builders import UID, a_run, job, pod

FOREIGN = {"kind": "DPORun", "name": "demo", "uid": "another", "controller": True}


def changed(body: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    return {**body, "metadata": {**body["metadata"], **metadata}}


def seen(*children: dict[str, Any]) -> tuple[list[str], list[str]]:
    observed = Observed.of(map(slim, children), a_run())
    return [found.name for found in observed.jobs], [found.name for found in observed.pods]


@pytest.mark.parametrize("component", ["prepare", "train", "archive", "tensorboard"])
def test_its_own_children(component: str) -> None:
    jobs, pods = seen(job(component), pod(component)) if component != "tensorboard" else seen(pod(component))
    assert len(jobs) == (component != "tensorboard")
    assert len(pods) == 1


def test_a_job_of_another_owner_is_not_of_the_run() -> None:
    ours = job("train")
    assert seen(ours)[0] == ["demo-train-1"]
    assert seen(changed(ours, ownerReferences=[FOREIGN]))[0] == []
    assert seen(changed(ours, ownerReferences=[]))[0] == []
    assert seen(changed(ours, ownerReferences=[{**FOREIGN, "uid": UID, "controller": False}]))[0] == []


def test_a_deletion_that_orphans_does_not_hide_a_job() -> None:
    orphan = changed(job("train"), ownerReferences=[])
    stranger = changed(job("prepare"), ownerReferences=[FOREIGN])
    observed = Observed.of(map(slim, [orphan, stranger]), a_run(deleting=True))
    assert [found.name for found in observed.jobs] == ["demo-train-1"]


def test_an_archive_job_has_the_name_of_its_attempt() -> None:
    assert seen(changed(job("archive", 2), name="forged"))[0] == []
    assert seen(changed(job("archive", 2), name="demo-archive-1"))[0] == []


def test_a_copied_pod_is_not_of_the_run() -> None:
    ours = pod("train")
    assert seen(changed(ours, ownerReferences=[]))[1] == []
    other = {"kind": "Job", "name": "demo-train-2", "uid": "x", "controller": True}
    assert seen(changed(ours, ownerReferences=[other]))[1] == []


def test_an_unknown_component_is_passed_over() -> None:
    body = job("train")
    labels = {**body["metadata"]["labels"], "app.kubernetes.io/component": "mining"}
    assert seen(changed(body, labels=labels)) == ([], [])
