"""Posts Events. They are for people: one that is refused or lost is logged, and holds up nothing."""

import logging
import uuid
from collections.abc import Callable
from datetime import datetime

from dporun_operator.cluster import Cluster
from dporun_operator.errors import ApiError
from dporun_operator.lifecycle.plan import Event
from dporun_operator.objects.event import event_object
from dporun_operator.run import Manifest

log = logging.getLogger(__name__)


class Events:
    """Posts through ``cluster``."""

    def __init__(self, cluster: Cluster, clock: Callable[[], datetime]):
        self._cluster = cluster
        self._clock = clock

    async def post(self, about: Manifest, event: Event) -> None:
        """Report ``event`` about an object: its apiVersion, kind and metadata."""
        manifest = event_object(
            about,
            type=event.type,
            reason=event.reason,
            message=event.message,
            unique=uuid.uuid4().hex[:16],
            now=self._clock(),
        )
        try:
            await self._cluster.post_event(manifest)
        except ApiError as error:
            where = "/".join(filter(None, (about["metadata"].get("namespace"), about["metadata"]["name"])))
            log.info("%s: event %s is lost: %s", where, event.reason, error)
