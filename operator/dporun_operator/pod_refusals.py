"""Asks why a Job gets no pod: of a quota or a policy that refuses its pods only the Job controller's Events tell."""

import logging
import re
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from dporun_api.text import parse_time
from dporun_operator.cluster import Cluster
from dporun_operator.errors import ApiError
from dporun_operator.observed import Job

log = logging.getLogger(__name__)

ASK_AGAIN = timedelta(seconds=60)
"""How often one Job is asked about: one list of Events each time."""
STALE = timedelta(minutes=10)
"""An Event that is older tells of a refusal that is over: the Job controller tries, and reports, more often."""


class PodRefusals:
    """Remembers the last answer about each Job, so that waiting costs next to nothing."""

    def __init__(self, cluster: Cluster):
        self._cluster = cluster
        self._answers: dict[str, dict[str, tuple[datetime, str | None]]] = {}

    async def __call__(self, run_uid: str, namespace: str, jobs: Iterable[Job], now: datetime) -> Mapping[str, str]:
        """The API server's words, by name of the Job, for those of ``jobs`` whose pods it refuses."""
        before = self._answers.get(run_uid, {})
        answers = {}
        for job in jobs:
            moment, words = before.get(job.uid, (None, None))
            if moment is None or now - moment >= ASK_AGAIN:
                moment, words = now, await self._ask(namespace, job, now)
            answers[job.uid, job.name] = moment, words
        self.forget(run_uid)
        if answers:
            self._answers[run_uid] = {uid: answer for (uid, _), answer in answers.items()}
        return {name: words for (_, name), (_, words) in answers.items() if words is not None}

    def forget(self, run_uid: str) -> None:
        """Drop what is remembered about the Jobs of a run."""
        self._answers.pop(run_uid, None)

    async def _ask(self, namespace: str, job: Job, now: datetime) -> str | None:
        selector = f"involvedObject.uid={job.uid},reason=FailedCreate"
        try:
            events = await self._cluster.list("Event", namespace=namespace, field=selector)
        except ApiError as error:
            log.info("cannot ask why Job %s/%s gets no pod: %s", namespace, job.name, error)
            return None
        told = [(time, event) for event in events if (time := _time(event)) is not None and now - time < STALE]
        return refusal(max(told, key=lambda entry: entry[0])[1].get("message") or "") if told else None


def refusal(message: str) -> str:
    """What an Event says, without the name of the pod: it is another one each time."""
    words = message.removeprefix("(combined from similar events): ").removeprefix("Error creating: ")
    return re.sub(r'^pods "[^"]*" is forbidden: ', "", words)


def _time(event: Mapping[str, Any]) -> datetime | None:
    """When an Event was last reported."""
    latest = (event.get("series") or {}).get("lastObservedTime")
    return parse_time(latest or event.get("lastTimestamp") or event.get("eventTime"))
