"""The operator of this checkout takes over what an earlier release left behind, whatever its runs were doing."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from dporun_testing import playing_kubelet as kubelet
from dporun_testing.control_plane import control_plane, install_crd
from dporun_testing.kubectl import eventually, get, kubectl, wait_condition
from dporun_testing.operator_process import OperatorProcess, operators
from dporun_testing.played_run import ARCHIVED, PREPARED, TRAINED, status, wait_gone
from dporun_testing.recorded import NAMESPACE, RECORDED, recorded, restore

pytestmark = pytest.mark.cluster

RELEASES = sorted(folder for folder in RECORDED.iterdir() if folder.is_dir())
RUNS = sorted({path.stem for release in RELEASES for path in release.glob("*.yaml")} - {"crd"})

OUTCOMES = {"prepare": PREPARED, "train": TRAINED, "archive": ARCHIVED}


def end(*jobs: str, run: str) -> None:
    """Let the pods of these Jobs end well, one after the other, and with them the run."""
    for job in jobs:
        kubelet.end(NAMESPACE, f"{run}-{job}", OUTCOMES[job.partition("-")[0]])
    wait_condition(run, "Succeeded", NAMESPACE, seconds=60)


def resume() -> None:
    kubectl("patch", "dporun", "suspended", "-n", NAMESPACE, "--type=merge", "-p", '{"spec": {"suspend": false}}')
    end("train-1", "archive-1", run="suspended")


def stop() -> None:
    (pod,) = kubectl("get", "pods", "-n", NAMESPACE, "-l", "dporun.io/run=stopping", "-o", "name").split()
    kubelet.stop(NAMESPACE, pod.removeprefix("pod/"))
    kubelet.end(NAMESPACE, "stopping-archive-1", ARCHIVED)
    wait_gone("dporun", "stopping", NAMESPACE)


def verify() -> None:
    kubelet.end(NAMESPACE, "verifying-archive-2", ARCHIVED)
    wait_gone("dporun", "verifying", NAMESPACE)


GOES_ON: dict[str, Callable[[], None]] = {
    "applied": partial(end, "prepare", "train-1", "archive-1", run="applied"),
    "preparing": partial(end, "prepare", "train-1", "archive-1", run="preparing"),
    "queued": partial(end, "train-1", "archive-1", run="queued"),
    "training": partial(end, "train-1", "archive-1", run="training"),
    "evaluating": partial(end, "train-1", "archive-1", run="evaluating"),
    "retrying": partial(end, "train-2", "archive-1", run="retrying"),
    "archiving": partial(end, "archive-1", run="archiving"),
    "suspended": resume,
    "stopping": stop,
    "verifying": verify,
}
"""How a recorded run goes on to its end."""

FINISHED = {"succeeded": "Succeeded", "failed": "Failed"}
"""Recorded runs that have ended, and their phase."""


@dataclass(frozen=True)
class Upgraded:
    """A cluster with the runs of a release, its CRD replaced by that of this checkout."""

    release: Path
    versions: dict[str, str]
    """Resource version of each run before the operator of this checkout saw it."""
    kubeconfig: Path


@pytest.fixture(scope="module", params=RELEASES, ids=lambda release: release.name)
def upgraded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upgraded]:
    release: Path = request.param
    folder = tmp_path_factory.mktemp("upgrade")
    restored = control_plane(folder, crd=release / "crd.yaml", before_controllers=partial(restore, release))
    with restored as kubeconfig, pytest.MonkeyPatch.context() as patch:
        patch.setenv("KUBECONFIG", str(kubeconfig))
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": kubelet.NODE}}
        kubectl("apply", "-f", "-", stdin=json.dumps(node))
        install_crd(kubeconfig)
        runs = json.loads(kubectl("get", "dporuns", "-n", NAMESPACE, "-o", "json"))["items"]
        yield Upgraded(release, {r["metadata"]["name"]: r["metadata"]["resourceVersion"] for r in runs}, kubeconfig)


@pytest.fixture(scope="module")
def operator(upgraded: Upgraded, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OperatorProcess]:
    with operators(upgraded.kubeconfig, tmp_path_factory.mktemp("operator")) as start:
        yield start(DPORUN_NAMESPACES=NAMESPACE)


def test_the_tables_name_every_recorded_run() -> None:
    assert sorted([*GOES_ON, *FINISHED]) == RUNS


def lacks(stored: Any, wanted: Any, path: str = "") -> list[str]:
    """Paths of what is in ``wanted`` and not, or otherwise, in ``stored``."""
    if isinstance(wanted, dict) and isinstance(stored, dict):
        return [found for key in wanted for found in lacks(stored.get(key), wanted[key], f"{path}.{key}")]
    return [] if stored == wanted else [path]


@pytest.mark.parametrize("run", RUNS)
def test_what_is_stored_satisfies_the_schema_of_today(run: str, upgraded: Upgraded) -> None:
    """An unchanged field of a stored object is not checked again, so it is checked as if it were new."""
    stored, *_ = recorded(upgraded.release)[run]
    fresh = {**stored, "metadata": {"name": f"fresh-{run}"}}
    of_default = ("-n", "default", "-f", "-", "-o", "json")
    created = json.loads(kubectl("create", *of_default, stdin=json.dumps(fresh)))
    assert lacks(created["spec"], stored["spec"]) == []
    written = {**created, "status": stored.get("status", {})}
    replaced = json.loads(kubectl("replace", "--subresource=status", *of_default, stdin=json.dumps(written)))
    kubectl("delete", "dporun", f"fresh-{run}", "-n", "default")
    assert lacks(replaced.get("status", {}), written["status"]) == []


@pytest.mark.usefixtures("operator")
@pytest.mark.parametrize("run", GOES_ON)
def test_a_run_under_way_goes_on_to_its_end(run: str) -> None:
    GOES_ON[run]()


@pytest.mark.parametrize("run", FINISHED)
def test_a_finished_run_is_left_untouched(run: str, upgraded: Upgraded, operator: OperatorProcess) -> None:
    looked = f'dporun_operator_runs{{phase="{FINISHED[run]}"}}'
    eventually(lambda: operator.metric(looked) >= 1, seconds=60, what="the operator has seen it")
    eventually(
        lambda: operator.metric("dporun_operator_reconciliations_total") >= len(upgraded.versions),
        seconds=60,
        what="the operator has looked at every run",
    )
    assert status(NAMESPACE, run)["phase"] == FINISHED[run]
    assert get("dporun", run, NAMESPACE)["metadata"]["resourceVersion"] == upgraded.versions[run]
