"""What must hold of every run, whatever has happened to it."""

import json
from pathlib import Path
from typing import Any

from dporun_testing.archives import NotWholeError, verify
from dporun_testing.chaos.watching import History
from dporun_testing.kubectl import kubectl
from dporun_testing.runs import exists_of_run
from dporun_testing.stand_in import VOLUMES


def problems(history: History, namespace: str, s3: Any) -> list[str]:
    """What is wrong with a run once everything has settled: nothing, it is to be hoped."""
    found = []
    if not history.gone and (history.phase != "Succeeded" or history.conditions.get("Archived") != "True"):
        found.append(f"it ended {history.phase or 'nowhere'}, Archived={history.conditions.get('Archived')}")
    if history.step and (lost := why_lost(history, namespace, s3)):
        found.append(f"LOST: checkpoint-{history.step} was on its volume; {lost}")
    if history.gone and (left := left_of(history, namespace)):
        found.append(f"it is gone, and left {', '.join(left)}")
    return found


def why_lost(history: History, namespace: str, s3: Any) -> str | None:
    """Why the newest checkpoint that was ever seen is neither archived nor kept for good; None when it is."""
    directory = f"{history.name}-{history.uid[:8]}"
    try:
        manifest = verify(s3, f"s3://{namespace}/runs/{directory}")
    except NotWholeError as error:
        return None if _kept(history, namespace, directory) else f"archive: {error}; volume: not kept visibly"
    best = (manifest.get("bestCheckpoint") or {}).get("step", 0)
    return None if best >= history.step else f"the archive's best checkpoint is that of step {best}"


def left_of(history: History, namespace: str) -> list[str]:
    """What a run that is gone has left behind, apart from the claim that was kept."""
    kept = f"persistentvolumeclaim/{_claim(history)}" if _told(history, namespace) else ""
    return [name for name in exists_of_run(history.uid, namespace) if name != kept]


def _kept(history: History, namespace: str, directory: str) -> bool:
    """Whether a complete checkpoint is on a volume that will not go away, and something visible says so."""
    names = [path.parent.name for path in Path(VOLUMES).glob(f"*/{directory}/checkpoint-*/COMPLETE")]
    claim = kubectl("get", "pvc", _claim(history), "-n", namespace, "--ignore-not-found", "-o", "json")
    if not names or not claim:
        return False
    stays = "deletionTimestamp" not in json.loads(claim)["metadata"]
    return stays and (not history.gone or _told(history, namespace))


def _told(history: History, namespace: str) -> bool:
    events = json.loads(kubectl("get", "events", "-n", namespace, "-o", "json"))["items"]
    return any(
        event["reason"] == "VolumeKept" and event["involvedObject"].get("uid") == history.uid for event in events
    )


def _claim(history: History) -> str:
    return f"{history.name}-results-{history.uid[:8]}"
