"""Orphans: claims that our finalizer still keeps, although their run does not exist any more.

Somebody has taken the run's finalizer off, or deleted a claim that was to outlive its run. They are reported and never
deleted: docs/runbooks/orphaned-claim.md says what to do.
"""

import logging
from collections.abc import Collection, Iterable

from dporun_api.v1alpha1.reasons import Reason
from dporun_operator import names
from dporun_operator.cache import Body
from dporun_operator.cluster import Cluster
from dporun_operator.events import Events
from dporun_operator.lifecycle.plan import Event

log = logging.getLogger(__name__)


class Orphans:
    """Finds them among listed claims, and reports each once.

    Attributes:
        count: how many there are.

    """

    def __init__(self, cluster: Cluster, events: Events):
        self._cluster = cluster
        self._events = events
        self._reported: set[str] = set()
        self.count = 0

    async def report(self, claims: Iterable[Body], runs: Collection[str]) -> None:
        """Report the orphans among ``claims``; ``runs`` are the UIDs of all runs, listed after the claims."""
        orphans = {claim["metadata"]["uid"]: claim for claim in claims if _is_orphan(claim, runs)}
        for uid in orphans.keys() - self._reported:
            if not await self._is_still_kept(orphans[uid]):
                del orphans[uid]
                continue
            metadata = orphans[uid]["metadata"]
            run = f"{metadata['labels'].get(names.RUN_NAME)} ({metadata['labels'][names.RUN_UID]})"
            words = f"DPORun {run} does not exist any more; the claim is kept. See docs/runbooks/orphaned-claim.md."
            log.warning("%s/%s: %s", metadata["namespace"], metadata["name"], words)
            about = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata}
            await self._events.post(about, Event("Warning", Reason.CLAIM_ORPHANED, words))
        self._reported = set(orphans)
        self.count = len(orphans)

    async def _is_still_kept(self, claim: Body) -> bool:
        """Whether the claim has not been let go since it was listed, and its run with it."""
        metadata = claim["metadata"]
        found = await self._cluster.get("PersistentVolumeClaim", metadata["namespace"], metadata["name"])
        return found is not None and _is_kept(found) and found["metadata"]["uid"] == metadata["uid"]


def _is_orphan(claim: Body, runs: Collection[str]) -> bool:
    return _is_kept(claim) and claim["metadata"]["labels"][names.RUN_UID] not in runs


def _is_kept(claim: Body) -> bool:
    return names.RESULTS_FINALIZER in claim["metadata"].get("finalizers", ())
