"""What all pods of a run share.

They satisfy Pod Security *restricted*, hold no credentials of the cluster, and run where the GPUs are.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from dporun_api.pod import CLAIMS_MOUNT, CONFIG_PATH, RESULTS_MOUNT, USER_ID, SecretPrefix
from dporun_api.v1alpha1.spec import SecretReference
from dporun_operator import names
from dporun_operator.names import Component
from dporun_operator.objects.metadata import labels
from dporun_operator.run import Manifest, Run
from dporun_operator.settings import Settings

_CONFIG_VOLUME = "config"
_RESULTS_VOLUME = "results"
_TEMPORARY_VOLUME = "tmp"
_TEMPORARY_FOLDER = "/tmp"  # noqa: S108  an emptyDir of this pod alone

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


def container(
    run: Run,
    settings: Settings,
    fragment: Manifest,
    *,
    environment: Mapping[str, str] = MappingProxyType({}),
    fields: Mapping[str, str] = MappingProxyType({}),
    secrets: Mapping[SecretPrefix, SecretReference | None] = MappingProxyType({}),
    optional_secrets: Mapping[SecretPrefix, SecretReference | None] = MappingProxyType({}),
    mounts: Sequence[Manifest] = (),
    read_only_results: bool = False,
) -> Manifest:
    """A container of the run's image with the results volume and a writable /tmp.

    Args:
        run: the run.
        settings: names the image where the run does not.
        fragment: the rest of the container: name, command, resources, ports, probes.
        environment: variables.
        fields: variables whose values are fields of the pod (downward API).
        secrets: each becomes variables whose names begin with its prefix, so that the same key of two Secrets does
            not clash.
        optional_secrets: likewise, but the container starts without those that do not exist.
        mounts: besides the results and /tmp.
        read_only_results: whether the container may only read the results.

    """
    variables = {"HOME": _TEMPORARY_FOLDER, **environment}
    sources = [
        {"prefix": prefix.value, "secretRef": {"name": secret_ref.name, **optional}}
        for some, optional in ((secrets, {}), (optional_secrets, {"optional": True}))
        for prefix, secret_ref in some.items()
        if secret_ref
    ]
    results = {"name": _RESULTS_VOLUME, "mountPath": str(RESULTS_MOUNT)}
    return {
        "image": run.spec.image or settings.trainer_image,
        "imagePullPolicy": settings.image_pull_policy,
        "env": [
            *({"name": key, "value": value} for key, value in variables.items()),
            *({"name": key, "valueFrom": {"fieldRef": {"fieldPath": path}}} for key, path in fields.items()),
        ],
        **({"envFrom": sources} if sources else {}),
        "securityContext": _CONTAINER_SECURITY,
        "volumeMounts": [
            {**results, "readOnly": True} if read_only_results else results,
            {"name": _TEMPORARY_VOLUME, "mountPath": _TEMPORARY_FOLDER},
            *mounts,
        ],
        **fragment,
    }


def template(
    run: Run,
    settings: Settings,
    component: Component,
    spec: Manifest,
    *,
    attempt: int | None = None,
    read_only_results: bool = False,
    with_results: bool = True,
    serves_tensorboard: bool = False,
) -> Manifest:
    """A pod template.

    Args:
        run: the run. Its placement is that of every pod, so that a volume which binds on first use binds where the
            GPUs are.
        settings: names the Secrets of the registry.
        component: what the pod does for the run.
        spec: what is special about the pod; ``volumes`` are added to those of every pod, a null is left out.
        attempt: of the Job around it.
        read_only_results: whether the pod may only read the results.
        with_results: whether the pod has the run's results, rather than an empty folder in their place.
        serves_tensorboard: whether the Service of TensorBoard leads to the pod.

    """
    resources = run.spec.resources
    claim = {"claimName": run.claim_name, **({"readOnly": True} if read_only_results else {})}
    optional = {
        "nodeSelector": resources.node_selector,
        "tolerations": [t.model_dump(by_alias=True, exclude_none=True) for t in resources.tolerations or ()],
        "runtimeClassName": resources.runtime_class_name,
        "imagePullSecrets": [{"name": secret} for secret in settings.image_pull_secrets],
        **{key: value for key, value in spec.items() if key != "volumes"},
    }
    more = {names.SERVES_TENSORBOARD: "true"} if serves_tensorboard else {}
    return {
        "metadata": {"labels": {**labels(run, component, attempt), **more}},
        "spec": {
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": _POD_SECURITY,
            "terminationGracePeriodSeconds": 30,
            **{key: value for key, value in optional.items() if value},
            "volumes": [
                {"name": _RESULTS_VOLUME, **({"persistentVolumeClaim": claim} if with_results else {"emptyDir": {}})},
                {"name": _TEMPORARY_VOLUME, "emptyDir": {}},
                *spec.get("volumes", ()),
            ],
        },
    }


def config_mount() -> Manifest:
    """Where the trainer finds its RunConfig."""
    return {"name": _CONFIG_VOLUME, "mountPath": str(CONFIG_PATH.parent), "readOnly": True}


def config_volume(run: Run) -> Manifest:
    """The volume behind ``config_mount``."""
    return {"name": _CONFIG_VOLUME, "configMap": {"name": names.config_map(run.name)}}


def claim_mounts(run: Run) -> list[Manifest]:
    """Mounts of the PersistentVolumeClaims that pvc:// addresses name, read-only.

    The claim of the results is a volume of the pod already; a second one of the same claim may never be mounted.
    """
    return [
        {
            "name": _RESULTS_VOLUME if claim == run.claim_name else volume,
            "mountPath": str(CLAIMS_MOUNT / claim),
            "readOnly": True,
        }
        for claim, volume in _claim_volumes(run).items()
    ]


def claim_volumes(run: Run) -> list[Manifest]:
    """The volumes behind ``claim_mounts``."""
    return [
        {"name": volume, "persistentVolumeClaim": {"claimName": claim, "readOnly": True}}
        for claim, volume in _claim_volumes(run).items()
        if claim != run.claim_name
    ]


def _claim_volumes(run: Run) -> dict[str, str]:
    """A volume's name for every PersistentVolumeClaim that the run's model and data are on."""
    dataset = run.spec.dataset
    addresses = (run.spec.model.uri, dataset.train, dataset.validation, run.spec.evaluation.general.uri)
    parts = (address.partition("://") for address in addresses if address)
    claims = dict.fromkeys(path.split("/", 1)[0] for scheme, _, path in parts if scheme == "pvc")
    return {claim: f"claim-{index}" for index, claim in enumerate(claims)}
