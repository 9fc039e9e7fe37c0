"""A Kubernetes Event about a run, or about the volume of its results."""

from datetime import datetime
from typing import Literal

from dporun_api.text import timestamp
from dporun_operator import names
from dporun_operator.run import Manifest

CLUSTER_SCOPED = "default"
"""Namespace of Events about objects that have none."""


def event_object(
    about: Manifest,
    *,
    type: Literal["Normal", "Warning"],  # noqa: A002  the API's name
    reason: str,
    message: str,
    unique: str,
    now: datetime,
) -> Manifest:
    """Build the Event; ``unique`` makes its name unlike that of any other Event.

    ``about`` is any object; of it, apiVersion, kind and the metadata that name it count.
    """
    named = {key: about["metadata"][key] for key in ("namespace", "name", "uid") if key in about["metadata"]}
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "name": f"{named['name'][:200]}.{unique}",
            "namespace": named.get("namespace", CLUSTER_SCOPED),
        },
        "involvedObject": {"apiVersion": about["apiVersion"], "kind": about["kind"], **named},
        "type": type,
        "reason": reason,
        "message": message,
        "source": {"component": names.OPERATOR},
        "reportingComponent": names.OPERATOR,
        "reportingInstance": names.OPERATOR,
        "firstTimestamp": timestamp(now),
        "lastTimestamp": timestamp(now),
        "count": 1,
    }
