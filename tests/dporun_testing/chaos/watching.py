"""What is seen of runs and their pods, by watches that go on whatever is killed, and by a look at the disks."""

import json
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from dporun_testing import processes
from dporun_testing.kubectl import KubectlError, kubectl
from dporun_testing.stand_in import VOLUMES

UID = "dporun.io/run-uid"
COMPONENT = "app.kubernetes.io/component"


@dataclass(frozen=True)
class PodSeen:
    """A pod as the API server last showed it."""

    name: str
    uid: str
    run: str
    component: str
    phase: str
    deleting: bool

    @property
    def live(self) -> bool:
        """Whether its containers may be running."""
        return self.phase not in {"Succeeded", "Failed"}


@dataclass
class History:
    """One run, from the first time it was seen."""

    name: str
    uid: str
    lines: list[str] = field(default_factory=list)
    """What changed when, for people."""
    phase: str = ""
    conditions: dict[str, str] = field(default_factory=dict)
    step: int = 0
    """Of the newest complete checkpoint that was ever on its volume; 0 for none."""
    gone: bool = False


class Watching:
    """Follows the runs and pods of a namespace until it is stopped."""

    def __init__(self, namespace: str):
        self.namespace = namespace
        self.runs: dict[str, History] = {}
        """By UID."""
        self.pods: dict[str, PodSeen] = {}
        """By UID; those that exist."""
        self.duplicates: list[str] = []
        """Each time that two training pods of one run were there."""
        self.restarts: list[float] = []
        """Seconds from the loss of a training pod to the next one that ran."""
        self._lost: dict[str, float] = {}
        self._began = time.monotonic()
        self._over = threading.Event()
        self._lock = threading.Lock()
        looks: tuple[Callable[[], None], ...] = (
            lambda: self._follow("dporuns", self._see_run, self._see_who_is_gone),
            lambda: self._follow("pods", self._see_pod, self.pods.clear),
            self._look_at_volumes,
        )
        self._threads = [threading.Thread(target=look, daemon=True) for look in looks]

    def __enter__(self) -> "Watching":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(10)

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self._began

    def note(self, run: str, text: str) -> None:
        """Put what was done to a run into its history."""
        for history in self.runs.values():
            if history.name == run:
                history.lines.append(f"{self.seconds:6.1f} s  ! {text}")

    def open_runs(self) -> list[History]:
        """Runs that have not come to their end, in the order in which they were seen."""
        over = {"Succeeded", "Failed"}
        return [run for run in list(self.runs.values()) if not run.gone and run.phase not in over]

    def live_pods(self, component: str | None = None) -> list[PodSeen]:
        """Pods whose containers may be running, of one component or of all, in order of their names."""
        pods = [pod for pod in list(self.pods.values()) if pod.live and component in {None, pod.component}]
        return sorted(pods, key=lambda pod: pod.name)

    def _follow(self, kind: str, see: Callable[[str, dict[str, Any]], None], start: Callable[[], None]) -> None:
        """Watch one kind; begin anew, with a list, whenever the watch ends."""
        command = ["kubectl", "get", kind, "-n", self.namespace, "-o", "json", "--watch", "--output-watch-events"]
        while not self._over.wait(0.5):
            try:
                with self._lock:
                    start()
            except KubectlError:  # the API server is away
                continue
            with processes.running(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as watch:
                threading.Thread(target=self._end_with_me, args=(watch,), daemon=True).start()
                for line in watch.stdout or ():
                    event = json.loads(line)
                    with self._lock:
                        see(event["type"], event["object"])

    def _end_with_me(self, watch: "subprocess.Popen[str]") -> None:
        while watch.poll() is None:
            if self._over.wait(0.5):
                watch.terminate()
                return

    def _see_who_is_gone(self) -> None:
        """Find the runs that went while nobody watched."""
        found = json.loads(kubectl("get", "dporuns", "-n", self.namespace, "-o", "json"))["items"]
        there = {run["metadata"]["uid"] for run in found}
        for history in self.runs.values():
            if history.uid not in there and not history.gone:
                history.gone = True
                history.lines.append(f"{self.seconds:6.1f} s  gone")

    def _see_run(self, change: str, found: dict[str, Any]) -> None:
        metadata, status = found["metadata"], found.get("status", {})
        history = self.runs.setdefault(metadata["uid"], History(metadata["name"], metadata["uid"]))
        history.gone = change == "DELETED"
        history.phase = status.get("phase", "")
        history.conditions = {c["type"]: c["status"] for c in status.get("conditions", ())}
        if history.conditions.get("Suspended") == "True":
            self._lost.pop(history.uid, None)
        words = "gone" if history.gone else f"{history.phase or 'new':<10} {status.get('message', '')}"
        if not history.lines or not history.lines[-1].endswith(words):
            history.lines.append(f"{self.seconds:6.1f} s  {words}")

    def _see_pod(self, change: str, found: dict[str, Any]) -> None:
        metadata, labels = found["metadata"], found["metadata"].get("labels", {})
        if UID not in labels:
            return
        pod = PodSeen(
            name=metadata["name"],
            uid=metadata["uid"],
            run=labels[UID],
            component=labels.get(COMPONENT, ""),
            phase=found["status"].get("phase", ""),
            deleting="deletionTimestamp" in metadata,
        )
        if change == "DELETED":
            self.pods.pop(pod.uid, None)
        else:
            self.pods[pod.uid] = pod
        if pod.component == "train":
            self._judge(pod, gone=change == "DELETED")

    def _judge(self, pod: PodSeen, *, gone: bool) -> None:
        """Look for a second training pod beside this one, and at how long there was none."""
        training = [one for one in self.live_pods("train") if one.run == pod.run]
        if len(training) > 1:
            names = ", ".join(f"{one.name} ({one.phase}{', deleting' * one.deleting})" for one in training)
            self.duplicates.append(f"{self.seconds:.1f} s: {names}")
        if gone or pod.phase == "Failed":
            self._lost.setdefault(pod.run, time.monotonic())
        elif pod.phase == "Running" and pod.run in self._lost:
            self.restarts.append(time.monotonic() - self._lost.pop(pod.run))

    def _look_at_volumes(self) -> None:
        """The newest complete checkpoint of every run: what must never be lost from then on."""
        while not self._over.wait(0.5):
            for history in list(self.runs.values()):
                markers = VOLUMES.glob(f"*/{history.name}-{history.uid[:8]}/checkpoint-*/COMPLETE")
                steps = [int(marker.parent.name.removeprefix("checkpoint-")) for marker in markers]
                history.step = max([history.step, *steps])
