"""What breaks: each fault chooses its victim, does it, and says what it did, or that there was nothing to break."""

import contextlib
import json
import os
import random
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from dporun_testing.chaos.watching import PodSeen, Watching
from dporun_testing.dev_cluster import devcluster
from dporun_testing.kubectl import kubectl
from dporun_testing.stand_in import suspend

SYSTEM = "dporun-system"


@dataclass(frozen=True)
class Done:
    """Something was broken.

    Attributes:
        words: what, for people.
        run: the run that was meant, if one was.
        undo: what ends it, if it does not end by itself, and after how many seconds.

    """

    words: str
    run: str | None = None
    undo: tuple[float, Callable[[], None]] | None = None


Fault = Callable[["Chaos"], Done | None]


@dataclass
class Chaos:
    """What a fault may look at."""

    chance: random.Random
    watching: Watching
    to_delete: int
    """How many runs may still be deleted."""

    @property
    def namespace(self) -> str:
        """Where the runs are."""
        return self.watching.namespace


def kill_operator(_chaos: Chaos) -> Done | None:
    """SIGKILL, as when its node dies; the kubelet starts it again, after a while when that happens often."""
    for name, uid in _operators():
        if signal_container(uid, signal.SIGKILL):
            return Done(f"operator: SIGKILL in {name}")
    return None


def replace_operator(_chaos: Chaos) -> Done | None:
    """SIGTERM and a new pod, as in a rollout."""
    for name, _ in _operators():
        kubectl("delete", "pod", name, "-n", SYSTEM, "--wait=false")
        return Done(f"operator: {name} deleted")
    return None


def _operators() -> list[tuple[str, str]]:
    """Name and UID of its pods that are not being deleted."""
    selector = "app.kubernetes.io/name=dporun-operator"
    pods = json.loads(kubectl("get", "pods", "-n", SYSTEM, "-l", selector, "-o", "json"))["items"]
    owned = [pod["metadata"] for pod in pods if pod["metadata"].get("ownerReferences")]
    return [(each["name"], each["uid"]) for each in owned if "deletionTimestamp" not in each]


def delete_pod(chaos: Chaos) -> Done | None:
    """SIGTERM, as when its node is drained."""
    return _to_a_pod(chaos, "deleted", lambda pod: _delete(pod, chaos.namespace))


def force_delete_pod(chaos: Chaos) -> Done | None:
    """Gone from the API server before its containers have ended."""
    force = ("--grace-period=0", "--force")
    return _to_a_pod(chaos, "force-deleted", lambda pod: _delete(pod, chaos.namespace, *force))


def evict_pod(chaos: Chaos) -> Done | None:
    """SIGTERM, with the condition DisruptionTarget."""
    return _to_a_pod(chaos, "evicted", lambda pod: _evict(pod, chaos.namespace))


def kill_pod(chaos: Chaos) -> Done | None:
    """``kill -9`` of PID 1."""
    return _to_a_pod(chaos, "killed (SIGKILL of PID 1)", lambda pod: signal_container(pod.uid, signal.SIGKILL))


def _to_a_pod(chaos: Chaos, word: str, do: Callable[[PodSeen], object]) -> Done | None:
    by_component: dict[str, list[PodSeen]] = {}
    for pod in chaos.watching.live_pods():
        if not pod.deleting:
            by_component.setdefault(pod.component, []).append(pod)
    if not by_component:
        return None
    pod = chaos.chance.choice(by_component[chaos.chance.choice(sorted(by_component))])
    run = chaos.watching.runs.get(pod.run)
    if do(pod) is False:
        return None
    return Done(f"pod: {pod.name} {word}", run.name if run else None)


def _delete(pod: PodSeen, namespace: str, *options: str) -> None:
    kubectl("delete", "pod", pod.name, "-n", namespace, "--wait=false", *options)


def _evict(pod: PodSeen, namespace: str) -> None:
    metadata = {"name": pod.name, "namespace": namespace}
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": metadata}
    path = f"/api/v1/namespaces/{namespace}/pods/{pod.name}/eviction"
    kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(eviction))


def stop_s3(chaos: Chaos) -> Done:
    """Connections are refused."""
    return _outage(chaos, "versitygw", "TERM", "s3: stopped", lambda: devcluster("start", "versitygw"))


def hang_s3(chaos: Chaos) -> Done:
    """Connections are accepted, and nothing is answered."""
    return _outage(chaos, "versitygw", "STOP", "s3: hangs", lambda: devcluster("kill", "versitygw", "--signal", "CONT"))


def kill_api_server(chaos: Chaos) -> Done:
    """SIGKILL."""
    return _outage(
        chaos, "kube-apiserver", "KILL", "api server: SIGKILL", lambda: devcluster("start", "kube-apiserver")
    )


def _outage(chaos: Chaos, server: str, how: str, words: str, undo: Callable[[], None]) -> Done:
    devcluster("kill", server, "--signal", how)
    seconds = chaos.chance.uniform(1, 12)
    return Done(f"{words} for {seconds:.0f} s", undo=(seconds, undo))


def suspend_run(chaos: Chaos) -> Done | None:
    """A person suspends a run."""
    return _switch(chaos, suspended=False)


def resume_run(chaos: Chaos) -> Done | None:
    """A person resumes a suspended run."""
    return _switch(chaos, suspended=True)


def _switch(chaos: Chaos, *, suspended: bool) -> Done | None:
    runs = [
        run
        for run in chaos.watching.open_runs()
        if (run.conditions.get("Suspended") == "True") is suspended and run.phase not in {"Deleting", ""}
    ]
    if not runs:
        return None
    run = chaos.chance.choice(runs)
    suspend(run.name, chaos.namespace, on=not suspended)
    return Done(f"run: {run.name} ({run.phase}) {'resumed' if suspended else 'suspended'}", run.name)


def delete_run(chaos: Chaos) -> Done | None:
    """A person deletes a run, whatever it does at the moment."""
    runs = [run for run in chaos.watching.open_runs() if run.phase != "Deleting"]
    if not runs or not chaos.to_delete:
        return None
    chaos.to_delete -= 1
    run, cascade = chaos.chance.choice(runs), chaos.chance.choice(["background", "foreground", "orphan"])
    kubectl("delete", "dporun", run.name, "-n", chaos.namespace, "--wait=false", f"--cascade={cascade}")
    return Done(f"run: {run.name} ({run.phase}) deleted, cascade {cascade}", run.name)


FAULTS: dict[str, tuple[Fault, int]] = {
    "operator SIGKILL": (kill_operator, 3),
    "operator replaced": (replace_operator, 3),
    "pod deleted": (delete_pod, 4),
    "pod force-deleted": (force_delete_pod, 2),
    "pod evicted": (evict_pod, 3),
    "pod SIGKILL": (kill_pod, 4),
    "S3 stopped": (stop_s3, 2),
    "S3 hangs": (hang_s3, 2),
    "API server SIGKILL": (kill_api_server, 2),
    "run suspended": (suspend_run, 2),
    "run resumed": (resume_run, 3),
    "run deleted": (delete_run, 3),
}
"""What breaks, and how often compared with the others."""


def signal_container(pod_uid: str, number: signal.Signals) -> bool:
    """Signal PID 1 of a pod's containers, as the node sees them; whether there was one."""
    found = list(_first_processes(pod_uid))
    for pid in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
    return bool(found)


def _first_processes(pod_uid: str) -> Iterator[int]:
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended
            if pod_uid not in (entry / "cgroup").read_text() or "pause" in (entry / "cmdline").read_text():
                continue
            ids = next(line for line in (entry / "status").read_text().splitlines() if line.startswith("NSpid:"))
            if ids.split()[-1] == "1":
                yield int(entry.name)
