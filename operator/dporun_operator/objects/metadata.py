"""Names, labels and owners of a run's children."""

from dporun_api.v1alpha1 import API_VERSION, KIND
from dporun_operator import names
from dporun_operator.names import Component
from dporun_operator.run import Manifest, Run


def metadata(run: Run, name: str, component: Component, *, attempt: int | None = None, owned: bool = True) -> Manifest:
    """Metadata of a child; one that is not ``owned`` outlives its run until the operator deletes it."""
    owner = {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "name": run.name,
        "uid": run.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }
    return {
        "name": name,
        "namespace": run.namespace,
        "labels": labels(run, component, attempt),
        **({"ownerReferences": [owner]} if owned else {}),
    }


def labels(run: Run, component: Component, attempt: int | None = None) -> dict[str, str]:
    """Labels of a child and of its pods; the watches and the Services select by them."""
    return {
        "app.kubernetes.io/name": "dporun",
        "app.kubernetes.io/managed-by": names.OPERATOR,
        names.COMPONENT: component.value,
        names.RUN_NAME: names.label_value(run.name),
        names.RUN_UID: run.uid,
        **({} if attempt is None else {names.ATTEMPT: str(attempt)}),
    }
