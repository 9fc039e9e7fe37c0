"""The volume of a run's results."""

from dporun_operator import names
from dporun_operator.names import Component
from dporun_operator.objects.metadata import metadata
from dporun_operator.run import Manifest, Run


def results_claim(run: Run, attempt: int | None = None) -> Manifest:
    """The PersistentVolumeClaim that is made for a run which names no existing one.

    Made again for a later ``attempt``, because the first one was lost, it bears that label.

    It has no owner: a foreground deletion of the run would delete an owned claim before the archive Job could mount
    it. It has a finalizer of ours: the data stays when a user or a namespace's deletion deletes the claim. The operator
    deletes it itself, last.
    """
    storage = run.spec.storage
    head = metadata(run, run.claim_name, Component.STORAGE, attempt=attempt, owned=False)
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {**head, "finalizers": [names.RESULTS_FINALIZER]},
        "spec": {
            "accessModes": list(storage.access_modes),
            "resources": {"requests": {"storage": storage.size}},
            **({"storageClassName": storage.storage_class_name} if storage.storage_class_name else {}),
        },
    }
