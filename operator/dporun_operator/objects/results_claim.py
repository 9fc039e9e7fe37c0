"""The volume of a run's results."""

from dporun_operator.names import Component
from dporun_operator.objects.metadata import metadata
from dporun_operator.run import Manifest, Run


def results_claim(run: Run) -> Manifest:
    """The PersistentVolumeClaim that is made for a run which names no existing one.

    It has no owner: a foreground deletion of the run would delete an owned claim before the archive Job could mount
    it. The operator deletes it itself, last.
    """
    storage = run.spec.storage
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": metadata(run, run.claim_name, Component.STORAGE, owned=False),
        "spec": {
            "accessModes": list(storage.access_modes),
            "resources": {"requests": {"storage": storage.size}},
            **({"storageClassName": storage.storage_class_name} if storage.storage_class_name else {}),
        },
    }
