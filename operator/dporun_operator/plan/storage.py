"""The volume of a run's results."""

from dporun_operator.names import Component
from dporun_operator.plan import pods
from dporun_operator.plan.run import Manifest, Run


def results_claim(run: Run) -> Manifest | None:
    """PersistentVolumeClaim to make for the run; None where the run names an existing one.

    It has no owner: a foreground deletion of the run would delete an owned claim before the archive Job could mount
    it. The operator deletes it itself, last.
    """
    storage = run.spec.storage
    if storage.claim_name:
        return None
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": pods.metadata(run, run.claim_name, Component.STORAGE, owned=False),
        "spec": {
            "accessModes": list(storage.access_modes),
            "resources": {"requests": {"storage": storage.size}},
            **({"storageClassName": storage.storage_class_name} if storage.storage_class_name else {}),
        },
    }
