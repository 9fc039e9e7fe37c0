"""The headless Service through which the training pods find each other."""

from dporun_api.pod import RENDEZVOUS_PORT, STATUS_PORT
from dporun_operator import names
from dporun_operator.names import Component
from dporun_operator.objects.metadata import metadata
from dporun_operator.run import Manifest, Run


def train_service(run: Run) -> Manifest:
    """Build the Service; it names pods before they are ready, as they meet before that."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(run, names.train_service(run.name), Component.TRAIN),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {names.RUN_UID: run.uid, names.COMPONENT: Component.TRAIN.value},
            "ports": [
                {"name": "rendezvous", "port": RENDEZVOUS_PORT, "targetPort": RENDEZVOUS_PORT},
                {"name": "status", "port": STATUS_PORT, "targetPort": STATUS_PORT},
            ],
        },
    }
