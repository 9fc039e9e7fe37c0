"""What Kueue says of a Job that it keeps suspended."""

import logging

from dporun_operator import names
from dporun_operator.cluster import Cluster
from dporun_operator.errors import ApiError

log = logging.getLogger(__name__)


async def queue_message(cluster: Cluster, namespace: str, job_uid: str) -> str | None:
    """Ask why a Job has no quota; None where Kueue has not said so yet, or is not to be asked."""
    try:
        workloads = await cluster.list("Workload", namespace=namespace, label=f"{names.KUEUE_JOB_UID}={job_uid}")
    except ApiError as error:
        log.info("%s: cannot ask Kueue about Job %s: %s", namespace, job_uid, error)
        return None
    conditions = [entry for workload in workloads for entry in workload.get("status", {}).get("conditions", ())]
    waits = [entry for entry in conditions if entry["type"] == "QuotaReserved" and entry["status"] == "False"]
    return next((str(entry["message"]) for entry in waits if entry.get("message")), None)
