"""A Kubernetes Event about a run."""

from datetime import datetime
from typing import Literal

from dporun_api.text import timestamp
from dporun_api.v1alpha1 import API_VERSION, KIND
from dporun_operator import names
from dporun_operator.run import Manifest, Run


def event_object(
    run: Run,
    *,
    type: Literal["Normal", "Warning"],  # noqa: A002  the API's name
    reason: str,
    message: str,
    unique: str,
    now: datetime,
) -> Manifest:
    """Build the Event; ``unique`` makes its name unlike that of any other Event."""
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{run.name[:200]}.{unique}", "namespace": run.namespace},
        "involvedObject": {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "namespace": run.namespace,
            "name": run.name,
            "uid": run.uid,
        },
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
