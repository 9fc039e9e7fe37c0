"""Scheduler and kubelet: give pods a node, start their programs, stop them, and say how they ended."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from dporun_api.results import Outcome, OutcomeState, Progress
from dporun_operator import names
from dporun_testing.builders import stamp
from dporun_testing.simulated import controllers, programs, virtual_time
from dporun_testing.simulated.api_server import ApiServer, Body
from dporun_testing.simulated.programs import End, Fate, Process
from dporun_testing.simulated.storage import Folder, Storage

EVICTION_SECONDS = 300.0
"""After which the pods of a node that does not answer are deleted, as by the taint manager."""
COLLECTION_SECONDS = 900.0
"""After which such a node is deleted, and its pods with it."""
SETTLED = {"Succeeded", "Failed"}

Report = Callable[[str], None]


@dataclass
class _Running:
    """A pod whose program runs."""

    process: Process
    task: asyncio.Task[End]
    component: str
    lost: bool = False
    """Whether its node does not answer any more; the program has ended with it."""


class Node:
    """A node with room for every pod.

    Args:
        server: has the pods.
        storage: what they mount.
        fates: what happens to each training attempt, in order; those after the last end well.
        reclaim: policy of new volumes.
        poke: called when something has changed that no watch tells.
        tell: notes what happens.

    """

    def __init__(
        self,
        server: ApiServer,
        storage: Storage,
        *,
        fates: tuple[Fate, ...],
        reclaim: str,
        poke: Callable[[], None],
        tell: Report,
    ):
        self._server = server
        self._storage = storage
        self._fates = list(fates)
        self._reclaim = reclaim
        self._poke = poke
        self._tell = tell
        self._running: dict[str, _Running] = {}
        self._ended: dict[str, End] = {}
        self.mistakes: list[str] = []
        """Two writers of one folder; an archive of a volume that is not the one of the results."""

    async def ask(self, namespace: str, pod: str, _address: str | None) -> Progress | None:
        """The progress of a pod, as the operator asks for it."""
        body = self._server.find("Pod", namespace, pod)
        running = self._running.get(body["metadata"]["uid"]) if body else None
        return running.process.progress if running and not running.lost else None

    def look(self) -> None:
        """Bring every pod a step further."""
        for pod in self._server.all("Pod"):
            uid, deleting = pod["metadata"]["uid"], "deletionTimestamp" in pod["metadata"]
            if pod["status"].get("phase") in SETTLED:
                if deleting:
                    self._bury(pod)
            elif uid in self._ended:
                self._report_end(pod, self._ended[uid])
            elif uid in self._running:
                if deleting and not self._running[uid].lost:
                    self._running[uid].process.stop.set()
            elif not pod["spec"].get("nodeName"):
                if not deleting:
                    self._schedule(pod)
            elif deleting:
                self._report_end(pod, End(137))
            else:
                self._start(pod)
        present = {pod["metadata"]["uid"] for pod in self._server.all("Pod")}
        for uid in self._running.keys() - present:  # deleted by force
            self._running.pop(uid).task.cancel()

    def _schedule(self, pod: Body) -> None:
        namespace = pod["metadata"]["namespace"]
        for name in controllers.claims_of(pod):
            claim = self._server.find("PersistentVolumeClaim", namespace, name)
            if claim is None:
                self._refuse(pod, f'persistentvolumeclaim "{name}" not found')
                return
            if "deletionTimestamp" in claim["metadata"]:
                self._refuse(pod, f'persistentvolumeclaim "{name}" is being deleted')
                return
            if "volumeName" not in claim["spec"]:
                controllers.bind(self._server, claim, reclaim=self._reclaim)
        self._server.bind(pod, "played")

    def _refuse(self, pod: Body, words: str) -> None:
        condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": words}
        self._write(pod, {"phase": "Pending", "conditions": [condition]})

    def _start(self, pod: Body) -> None:
        metadata, component = pod["metadata"], pod["metadata"]["labels"][names.COMPONENT]
        if component not in programs.PROGRAMS:
            return
        (source,) = [v["configMap"]["name"] for v in pod["spec"]["volumes"] if "configMap" in v]
        config = self._server.find("ConfigMap", metadata["namespace"], source)
        claims = controllers.claims_of(pod)
        volume = self._volume(pod, claims[0]) if claims else None
        if config is None or (claims and volume is None):
            self._write(pod, {"phase": "Pending", "containerStatuses": [_container({"waiting": _CREATING})]})
            return
        run_config = programs.read_config(config["data"])
        folder = self._storage.folder(volume, run_config.run.directory) if volume else Folder()
        fate = self._fates.pop(0) if component == "train" and self._fates else Fate.ENDS_WELL
        self._check_writers(pod, folder, component)
        if component == "archive" and claims and not folder.checkpoints and self._storage.ever_saved:
            self.mistakes.append(f"{metadata['name']} archives an empty volume although a checkpoint was saved")
        process = Process(run_config, folder, self._storage, pod["spec"]["containers"][0]["command"], fate)
        task = asyncio.create_task(programs.start(component, process))
        self._running[metadata["uid"]] = _Running(process, task, component)
        task.add_done_callback(lambda task: self._note_end(metadata["uid"], task))
        running = {"running": {"startedAt": stamp(virtual_time.now())}}
        self._write(
            pod, {"phase": "Running", "podIP": "10.0.0.7", "containerStatuses": [_container(running, ready=True)]}
        )
        self._tell(f"pod {metadata['name']} runs" + (f" and {fate}" if component == "train" else ""))
        if fate is Fate.IS_EVICTED:
            asyncio.get_running_loop().call_later(20, self._evict, metadata["uid"], "EvictionByEvictionAPI")
        if fate is Fate.NODE_IS_LOST:
            asyncio.get_running_loop().call_later(20, self._lose, metadata["uid"])

    def _check_writers(self, pod: Body, folder: object, component: str) -> None:
        for running in self._running.values():
            if running.process.folder is folder and not running.lost and "train" in {component, running.component}:
                words = f"{pod['metadata']['name']} starts while another pod that {running.component}s still runs"
                self.mistakes.append(words)

    def _volume(self, pod: Body, name: str) -> str | None:
        claim = self._server.find("PersistentVolumeClaim", pod["metadata"]["namespace"], name)
        return claim["spec"].get("volumeName") if claim else None

    def _note_end(self, uid: str, task: asyncio.Task[End]) -> None:
        if not task.cancelled():
            self._running.pop(uid, None)
            self._ended[uid] = task.result()
            self._poke()

    def _report_end(self, pod: Body, end: End) -> None:
        stopped = end.outcome is not None and end.outcome.state is OutcomeState.PREEMPTED
        message = end.outcome.to_json(exclude_none=True) if end.outcome else None
        reason = "OOMKilled" if _out_of_memory(end.outcome) else "Error" if end.code else "Completed"
        ended = {"exitCode": int(end.code), "reason": reason, "message": None if reason == "OOMKilled" else message}
        phase = "Failed" if end.code else "Succeeded"
        self._tell(f"pod {pod['metadata']['name']} {'was stopped' if stopped else f'ended with {int(end.code)}'}")
        self._write(pod, {"phase": phase, "containerStatuses": [_container({"terminated": ended})]})

    def _bury(self, pod: Body) -> None:
        self._server.delete(pod, grace=0)

    def _evict(self, uid: str, reason: str) -> None:
        if pod := self._find(uid):
            condition = {"type": "DisruptionTarget", "status": "True", "reason": reason}
            self._write(pod, {"conditions": [*pod["status"].get("conditions", ()), condition]})
            if pod := self._find(uid):
                self._server.delete(pod)

    def _lose(self, uid: str) -> None:
        running, pod = self._running.get(uid), self._find(uid)
        if running is None or pod is None:
            return
        running.lost = True
        running.task.cancel()
        self._tell(f"the node of pod {pod['metadata']['name']} is lost")
        loop = asyncio.get_running_loop()
        loop.call_later(EVICTION_SECONDS, self._evict, uid, "DeletionByTaintManager")
        loop.call_later(COLLECTION_SECONDS, self._collect, uid)

    def _collect(self, uid: str) -> None:
        if pod := self._find(uid):
            self._running.pop(uid, None)
            self._write(pod, {"phase": "Failed"})
            if pod := self._find(uid):
                self._server.delete(pod, grace=0)

    def _find(self, uid: str) -> Body | None:
        return next((pod for pod in self._server.all("Pod") if pod["metadata"]["uid"] == uid), None)

    def _write(self, pod: Body, status: Mapping[str, Any]) -> None:
        self._server.change(pod, {"status": status}, subresource="status")


_CREATING = {"reason": "ContainerCreating"}


def _container(state: Mapping[str, Any], *, ready: bool = False) -> dict[str, Any]:
    return {"name": names.MAIN_CONTAINER, "state": state, "ready": ready}


def _out_of_memory(outcome: Outcome | None) -> bool:
    return outcome is not None and outcome.failure is not None and outcome.failure.reason == "HostOutOfMemory"
