"""What all pods of a run share: they satisfy Pod Security *restricted*, hold no credentials of the cluster, and run
where the GPUs are.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from dporun_api.pod import CLAIMS_MOUNT, CONFIG_PATH, RESULTS_MOUNT, USER_ID
from dporun_api.v1alpha1 import API_VERSION, KIND
from dporun_api.v1alpha1.spec import SecretReference
from dporun_operator import names
from dporun_operator.names import Component
from dporun_operator.plan.run import Manifest, Run
from dporun_operator.settings import Requirements, Settings

CONFIG_VOLUME = "config"
RESULTS_VOLUME = "results"
TEMPORARY_VOLUME = "tmp"
SHARED_MEMORY_VOLUME = "shm"

_CONTAINER_SECURITY = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
_POD_SECURITY = {
    "runAsNonRoot": True,
    "runAsUser": USER_ID,
    "runAsGroup": USER_ID,
    "fsGroup": USER_ID,
    "fsGroupChangePolicy": "OnRootMismatch",
    "seccompProfile": {"type": "RuntimeDefault"},
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


def container(
    run: Run,
    settings: Settings,
    *,
    name: str,
    command: Sequence[str],
    resources: Requirements,
    environment: Mapping[str, str] | None = None,
    secrets: Mapping[str, SecretReference | None] = MappingProxyType({}),
    read_only_results: bool = False,
    mounts: Sequence[Manifest] = (),
    **other: Any,
) -> Manifest:
    """A container of the run's image with the results volume and a writable /tmp.

    Each of the ``secrets`` becomes variables whose names begin with its prefix, so that the same key of two Secrets
    does not clash. ``other`` is added as it is.
    """
    variables = {"HOME": "/tmp", **(environment or {})}  # noqa: S108  an emptyDir of this pod alone
    sources = [{"prefix": prefix, "secretRef": {"name": ref.name}} for prefix, ref in secrets.items() if ref]
    return {
        "name": name,
        "image": run.spec.image or settings.trainer_image,
        "imagePullPolicy": settings.image_pull_policy,
        "command": list(command),
        "env": [{"name": key, "value": value} for key, value in variables.items()],
        **({"envFrom": sources} if sources else {}),
        "resources": {kind: dict(amounts) for kind, amounts in resources.items()},
        "securityContext": _CONTAINER_SECURITY,
        "volumeMounts": [
            {
                "name": RESULTS_VOLUME,
                "mountPath": str(RESULTS_MOUNT),
                **({"readOnly": True} if read_only_results else {}),
            },
            {"name": TEMPORARY_VOLUME, "mountPath": "/tmp"},  # noqa: S108
            *mounts,
        ],
        **other,
    }


def config_mount() -> Manifest:
    """Where the trainer finds its RunConfig."""
    return {"name": CONFIG_VOLUME, "mountPath": str(CONFIG_PATH.parent), "readOnly": True}


def claim_mounts(run: Run) -> tuple[list[Manifest], list[Manifest]]:
    """Mounts and volumes of the PersistentVolumeClaims that pvc:// addresses name, read-only.

    The claim of the results is a volume of the pod already; a second one of the same claim may never be mounted.
    """
    volumes = {claim: f"claim-{index}" for index, claim in enumerate(dict.fromkeys(input_claims(run)))}
    mounts = [
        {
            "name": RESULTS_VOLUME if claim == run.claim_name else volume,
            "mountPath": str(CLAIMS_MOUNT / claim),
            "readOnly": True,
        }
        for claim, volume in volumes.items()
    ]
    return mounts, [
        {"name": volume, "persistentVolumeClaim": {"claimName": claim, "readOnly": True}}
        for claim, volume in volumes.items()
        if claim != run.claim_name
    ]


def input_claims(run: Run) -> list[str]:
    """PersistentVolumeClaims that the run's model and data are on."""
    addresses = (
        run.spec.model.uri,
        run.spec.dataset.train,
        run.spec.dataset.validation,
        run.spec.evaluation.general.uri,
    )
    parts = (address.partition("://") for address in addresses if address)
    return [path.split("/", 1)[0] for scheme, _, path in parts if scheme == "pvc"]


def template(
    run: Run,
    settings: Settings,
    *,
    component: Component,
    attempt: int | None,
    containers: Sequence[Manifest],
    sidecars: Sequence[Manifest] = (),
    volumes: Sequence[Manifest] = (),
    read_only_results: bool = False,
    service_account: str | None = None,
    priority_class: str | None = None,
    **other: Any,
) -> Manifest:
    """A pod template around ``containers``; ``other`` is added to the pod's spec as it is.

    Every pod carries the placement of the training pod, so that a volume which binds on first use binds where the
    GPUs are.
    """
    resources = run.spec.resources
    claim = {"claimName": run.claim_name, **({"readOnly": True} if read_only_results else {})}
    placement = {
        "nodeSelector": resources.node_selector,
        "tolerations": [t.model_dump(by_alias=True, exclude_none=True) for t in resources.tolerations or ()],
        "runtimeClassName": resources.runtime_class_name,
        "priorityClassName": priority_class,
        "serviceAccountName": service_account,
        "imagePullSecrets": [{"name": secret} for secret in settings.image_pull_secrets],
    }
    return {
        "metadata": {"labels": labels(run, component, attempt)},
        "spec": {
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": _POD_SECURITY,
            "terminationGracePeriodSeconds": 30,
            **{key: value for key, value in placement.items() if value},
            **({"initContainers": list(sidecars)} if sidecars else {}),
            "containers": list(containers),
            "volumes": [
                {"name": RESULTS_VOLUME, "persistentVolumeClaim": claim},
                {"name": TEMPORARY_VOLUME, "emptyDir": {}},
                *volumes,
            ],
            **other,
        },
    }


def config_volume(run: Run) -> Manifest:
    """The volume behind ``config_mount``."""
    return {"name": CONFIG_VOLUME, "configMap": {"name": names.config_map(run.name)}}
