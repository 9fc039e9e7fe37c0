"""The user, with kubectl."""

from typing import Any

from dporun_operator import names
from dporun_testing.simulated.answers import Refused
from dporun_testing.simulated.api_server import ApiServer, Body
from dporun_testing.simulated.history import Act
from dporun_testing.simulated.storage import ADAPTER, Storage

_PROPAGATION = {Act.DELETE: "Background", Act.DELETE_FOREGROUND: "Foreground", Act.DELETE_ORPHAN: "Orphan"}
_DELETED_KIND = {Act.DELETE_CLAIM: "PersistentVolumeClaim", Act.DELETE_JOBS: "Job", Act.DELETE_PODS: "Pod"}


class User:
    """Does what a history says, to the objects of one namespace."""

    def __init__(self, server: ApiServer, storage: Storage):
        self._server = server
        self._storage = storage

    def do(self, act: Act) -> str:
        """Do something; says what came of it."""
        try:
            return self._do(act)
        except Refused as refused:
            return f"refused: {refused}"

    def _do(self, act: Act) -> str:
        run = self._server.find("DPORun", "team-a", "demo")
        patches: dict[Act, dict[str, Any]] = {
            Act.SUSPEND: {"spec": {"suspend": True}},
            Act.RESUME: {"spec": {"suspend": False}},
            Act.EDIT: {"spec": {"runPolicy": {"maxRetries": 5}}},
            Act.STRIP_RUN: {"metadata": {"finalizers": None}},
            Act.FORCE_RELEASE: {"metadata": {"annotations": {names.FORCE_RELEASE: _uid(run)}}},
        }
        if act in _PROPAGATION and run:
            self._server.delete(run, propagation=_PROPAGATION[act])
        elif act in patches and run:
            self._server.change(run, patches[act])
        elif kind := _DELETED_KIND.get(act):
            for body in self._server.all(kind, "team-a"):
                self._server.delete(body)
        elif act is Act.STRIP_CLAIM:
            for claim in self._server.all("PersistentVolumeClaim", "team-a"):
                kept = [name for name in claim["metadata"].get("finalizers", ()) if "dporun" not in name]
                self._server.change(claim, {"metadata": {"finalizers": kept or None}})
        elif act is Act.DELETE_NAMESPACE:
            namespace = self._server.find("Namespace", "", "team-a")
            if namespace:
                self._server.delete(namespace)
        elif act is Act.ALTER_ARCHIVE:
            for files in self._storage.archives.values():
                if ADAPTER in files:
                    files[ADAPTER] = "something else"
        return "done" if run else "no run"


def _uid(run: Body | None) -> str:
    return str(run["metadata"]["uid"]) if run else ""
