"""What must hold at the end of every history, and at every moment of it."""

from collections.abc import Iterator

import pytest

from dporun_testing.simulated.api_server import Body
from dporun_testing.simulated.history import DELETIONS, Act, History
from dporun_testing.simulated.world import Ended, children, play

RESULTS = "dporun.io/results"
_ENDS = {*DELETIONS, Act.DELETE_NAMESPACE}
_TOLD = {"VolumeKept", "VolumeRetained", "ClaimOrphaned"}
_ENDS_CLAIM = {Act.DELETE_CLAIM, Act.DELETE_NAMESPACE}


def check(history: History) -> None:
    """Play a history; one that ends badly fails with its story, and with what to paste to play it again."""
    ended = play(history)
    if found := problems(ended):
        story = "\n".join(ended.story)
        pytest.fail(f"{'; '.join(found)}\n{story}\nplay it again: {history}", pytrace=False)


def problems(ended: Ended) -> list[str]:
    """Everything that is wrong; empty when the history ended well."""
    return [*ended.mistakes, *_converges(ended), *_keeps_results(ended), *_leaves_nothing(ended)]


def gave_up(ended: Ended) -> bool:
    """Whether the user has asked for the loss of the results, by words or by breaking what protects them."""
    history, acts = ended.history, [act for _, act in ended.history.acts]
    deletion = next((number for number, act in enumerate(acts) if act in _ENDS), len(acts))
    return (
        history.policy == "Delete"
        or Act.FORCE_RELEASE in acts
        or (Act.STRIP_CLAIM in acts and history.has(*_ENDS_CLAIM))
        or Act.ALTER_ARCHIVE in acts[0 if history.ttl is not None else deletion :]  # it may have been verified by then
        or (history.own_claim and history.has(*_ENDS_CLAIM))  # the user's own has no finalizer of ours
        or any(act in _ENDS_CLAIM and second >= ended.gone_at for second, act in history.acts)
    )


def _converges(ended: Ended) -> Iterator[str]:
    """The run is gone, finished, suspended as asked, or says why it waits."""
    run, history = ended.run, ended.history
    if not ended.converged:
        yield f"does not come to rest: {_says(run)}"
        return
    if run is None:
        return
    phase, broken = (
        run.get("status", {}).get("phase"),
        history.has(Act.DELETE_NAMESPACE, Act.DELETE_CLAIM, Act.STRIP_CLAIM),
    )
    if phase in {"Succeeded", "Failed"} and "deletionTimestamp" not in run["metadata"]:
        return
    if phase == "Suspended" and run["spec"].get("suspend"):
        return
    if not broken or not run.get("status", {}).get("message"):
        yield f"waits for no reason: {_says(run)}"


def _keeps_results(ended: Ended) -> Iterator[str]:
    """The archive verifies and has an adapter, or a checkpoint is on a volume that stays and something says so."""
    storage, directory = ended.storage, f"demo-{ended.uid[:8]}"
    if not ended.saved or gave_up(ended):
        return
    if storage.holds_adapter(f"s3://bucket/runs/{directory}"):
        return
    held = [
        name for name, folders in storage.volumes.items() if directory in folders and folders[directory].checkpoints
    ]
    volumes = [volume for volume in ended.server.all("PersistentVolume") if volume["metadata"]["name"] in held]
    stripped = ended.history.has(Act.STRIP_RUN) and ended.history.has(Act.STRIP_CLAIM)  # nothing of ours is left then
    if not volumes:
        yield "the results are lost"
    for volume in volumes:
        if not _stays(ended, volume):
            yield f"the results are on {volume['metadata']['name']}, which will go away"
        elif ended.run is None and not stripped and not ended.history.own_claim and not _is_told(ended, volume):
            yield f"nothing says that the results are on {volume['metadata']['name']}"


def _stays(ended: Ended, volume: Body) -> bool:
    if volume["spec"]["persistentVolumeReclaimPolicy"] == "Retain":
        return True
    reference = volume["spec"]["claimRef"]
    claim = ended.server.find("PersistentVolumeClaim", reference["namespace"], reference["name"])
    if claim is None:
        return False
    return "deletionTimestamp" not in claim["metadata"] or RESULTS in claim["metadata"].get("finalizers", ())


def _is_told(ended: Ended, volume: Body) -> bool:
    """Whether an Event says so, an annotation of the claim or of the volume, or the metric of orphaned claims."""
    reference = volume["spec"]["claimRef"]
    claim = ended.server.find("PersistentVolumeClaim", reference["namespace"], reference["name"])
    told = any(event["reason"] in _TOLD for event in ended.server.all("Event"))
    noted = [body["metadata"].get("annotations", {}) for body in (volume, claim) if body]
    return (
        told or ended.orphans > 0 or any(key.startswith("dporun.io/") for annotations in noted for key in annotations)
    )


def _leaves_nothing(ended: Ended) -> Iterator[str]:
    """After the deletion there is nothing left of a run but what was meant to stay."""
    if ended.run is not None:
        return
    stays = ["PersistentVolumeClaim"]
    if ended.history.has(Act.DELETE_ORPHAN):
        stays += ["Service"]
    if ended.history.has(Act.STRIP_RUN):
        stays += ["Job", "Pod", "ConfigMap"]
    left = [child for child in children(ended) if child.split()[0] not in stays]
    if left:
        yield f"is left behind: {', '.join(left)}"


def _says(run: Body | None) -> str:
    status = (run or {}).get("status", {})
    return f"{status.get('phase')}: {status.get('message')}"
