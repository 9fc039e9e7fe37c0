"""The volumes of the results: the claim's finalizer, and the PersistentVolume behind it, which outlives a namespace.

Neither is watched: they are read when they are needed, a PersistentVolume only when a namespace is deleted.
"""

import logging

from dporun_api.v1alpha1.reasons import Reason
from dporun_operator import names
from dporun_operator.cluster import Cluster
from dporun_operator.errors import NameTakenError
from dporun_operator.events import Events
from dporun_operator.lifecycle.plan import Event, Retain, Unprotect
from dporun_operator.run import Run

log = logging.getLogger(__name__)

_CLAIM, _VOLUME = "PersistentVolumeClaim", "PersistentVolume"


class Volumes:
    """Acts on claims and PersistentVolumes."""

    def __init__(self, cluster: Cluster, events: Events):
        self._cluster = cluster
        self._events = events

    async def behind(self, run: Run) -> str | None:
        """Name of the PersistentVolume that the run's claim is bound to; None when it is bound to none, or gone."""
        claim = await self._cluster.get(_CLAIM, run.namespace, run.claim_name)
        return None if claim is None else claim["spec"].get("volumeName")

    async def retain(self, run: Run, target: Retain) -> None:
        """Keep a PersistentVolume whatever becomes of its claim, write the run on it, and report that.

        Raises:
            ApiError: this operator may not.
            NameTakenError: the volume belongs to another claim.

        """
        volume = await self._cluster.get(_VOLUME, None, target.volume)
        if volume is None:
            log.warning("%s/%s: PersistentVolume %s does not exist any more", run.namespace, run.name, target.volume)
            return
        claim = volume["spec"].get("claimRef") or {}
        if (claim.get("namespace"), claim.get("name")) != (run.namespace, run.claim_name):
            raise NameTakenError(f"PersistentVolume {target.volume} belongs to another claim than {run.claim_name}")
        known = volume["metadata"].get("annotations") or {}
        is_kept = volume["spec"].get("persistentVolumeReclaimPolicy") == "Retain"
        if is_kept and known.items() >= target.annotations.items():
            return
        keep = {"spec": {"persistentVolumeReclaimPolicy": "Retain"}, "metadata": {"annotations": target.annotations}}
        await self._cluster.patch(_VOLUME, None, target.volume, keep)
        log.warning("%s/%s: PersistentVolume %s: %s", run.namespace, run.name, target.volume, target.message)
        await self._events.post(volume, Event("Warning", Reason.VOLUME_RETAINED, target.message))

    async def unprotect(self, namespace: str, target: Unprotect, run_uid: str) -> None:
        """Take our finalizer off a claim of this run; on one that is kept, write first why."""
        try:
            claim = await self._cluster.find(_CLAIM, namespace, target.claim, run_uid=run_uid)
        except NameTakenError:
            return
        if (
            claim is not None
            and target.kept
            and claim["metadata"].get("annotations", {}).get(names.KEPT) != target.kept
        ):
            note = {"metadata": {"annotations": {names.KEPT: target.kept}}}
            claim = await self._cluster.patch(_CLAIM, namespace, target.claim, note)
        if claim is not None and (target.even_if_deleted or "deletionTimestamp" not in claim["metadata"]):
            await self._cluster.remove_finalizer(_CLAIM, claim["metadata"], names.RESULTS_FINALIZER)
