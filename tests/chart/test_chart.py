"""The chart, rendered by the real helm: valid, strict, and with no more rights than it needs."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from dporun_api.crd import custom_resource_definition
from dporun_operator.settings import ENV_PREFIX, Settings
from dporun_testing.control_plane import control_plane
from dporun_testing.kubectl import kubectl
from dporun_testing.paths import CHART

pytestmark = pytest.mark.cluster  # helm comes with the dev cluster

Object = dict[str, Any]


def helm(*arguments: str) -> str:
    """Run helm; a failure raises with what it printed."""
    result = subprocess.run(["helm", *arguments], capture_output=True, text=True, check=False)
    if result.returncode:
        raise AssertionError(result.stderr)
    return result.stdout


def render(*arguments: str) -> list[Object]:
    """Every object of ``helm template``, for the oldest Kubernetes that is supported."""
    text = helm("template", "dporun", str(CHART), "--namespace", "dporun-system", "--kube-version=1.29", *arguments)
    return [document for document in yaml.safe_load_all(text) if document]


def of_kind(objects: list[Object], *kinds: str) -> list[Object]:
    return [document for document in objects if document["kind"] in kinds]


def operator(*arguments: str) -> Object:
    """Spec of the operator's pod."""
    (deployment,) = of_kind(render(*arguments), "Deployment")
    spec: Object = deployment["spec"]["template"]["spec"]
    return spec


def environment(*arguments: str) -> dict[str, str]:
    (container,) = operator(*arguments)["containers"]
    return {variable["name"]: variable["value"] for variable in container["env"]}


def test_lint() -> None:
    helm("lint", "--strict", str(CHART))


VARIANTS = {
    "defaults": (),
    "namespaced": ("--set", "watch.mode=namespaces", "--set", "watch.namespaces={team-a,team-b}"),
    "no-crd": ("--set", "crds.enabled=false"),
    "no-rbac": ("--set", "rbac.create=false", "--set", "serviceAccount.create=false"),
    "everything": (
        "--set-json", 'tolerations=[{"key":"a","operator":"Exists"}]',
        "--set-json", 'affinity={"nodeAffinity":{}}',
        "--set-json", 'extraEnv=[{"name":"HTTPS_PROXY","value":"http://proxy:3128"}]',
        "--set-json", 'imagePullSecrets=[{"name":"registry"}]',
        "--set", "nodeSelector.disk=ssd,podLabels.team=ml,podAnnotations.note=x,commonLabels.owner=ml",
        "--set", "priorityClassName=system-cluster-critical,serviceAccount.annotations.role=arn",
        "--set", "metrics.podMonitor.enabled=true,crds.annotations.a=b,crds.keep=false",
    ),
}  # fmt: skip


@pytest.mark.parametrize("arguments", VARIANTS.values(), ids=VARIANTS)
def test_the_api_server_accepts_every_object(arguments: tuple[str, ...]) -> None:
    for document in render(*arguments):
        if document["kind"] == "CustomResourceDefinition":
            continue  # may be installed already, and owned by another release
        if document["kind"] == "Pod":
            document["spec"]["serviceAccountName"] = "default"  # its own is not there in a dry run
        text = json.dumps(document | {"metadata": {**document["metadata"], "namespace": "default"}})
        command = ["kubectl", "create", "--dry-run=server", "--validate=strict", "--filename", "-"]
        if document["kind"].startswith("Cluster"):
            text = json.dumps(document)
        result = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
        assert result.returncode == 0 or "already exists" in result.stderr, result.stderr


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("imge.tag=1", "imge"),
        ("image.tagg=1", "tagg"),
        ("watch.mode=some", "/watch/mode"),
        ("watch.namespace={a}", "namespace"),
        ("logging.level=verbose", "/logging/level"),
        ("image.digest=latest", "/image/digest"),
        ("metrics.port=eighty", "/metrics/port"),
        ("timing.resyncSeconds=0", "/timing/resyncSeconds"),
        ("timing.leaseSeconds=2", "/timing/leaseSeconds"),
        ("defaults.resources.training.limits.cpu=1", "training"),
        ("trainerImage.allowed={a b}", "/trainerImage/allowed"),
    ],
)
def test_a_wrong_value_is_refused(setting: str, words: str) -> None:
    with pytest.raises(AssertionError, match=words):
        render("--set", setting)


def test_the_crd_is_the_committed_one() -> None:
    (crd,) = of_kind(render(), "CustomResourceDefinition")
    assert crd["spec"] == custom_resource_definition()["spec"]
    assert crd["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}


def test_the_crd_can_be_left_out_or_given_away() -> None:
    assert not of_kind(render("--set", "crds.enabled=false"), "CustomResourceDefinition")
    (crd,) = of_kind(render("--set", "crds.keep=false"), "CustomResourceDefinition")
    assert "annotations" not in crd["metadata"]


def test_in_namespaced_mode_there_are_roles_alone() -> None:
    objects = render(*VARIANTS["namespaced"])
    assert not of_kind(objects, "ClusterRole", "ClusterRoleBinding")
    roles = [role for role in of_kind(objects, "Role", "RoleBinding") if "helm.sh/hook" not in str(role)]
    assert {(role["kind"], role["metadata"]["namespace"]) for role in roles} == {
        (kind, namespace) for kind in ("Role", "RoleBinding") for namespace in ("team-a", "team-b", "dporun-system")
    }
    assert environment(*VARIANTS["namespaced"])["DPORUN_NAMESPACES"] == "team-a,team-b"


def test_in_namespaced_mode_the_own_namespace_is_the_default() -> None:
    assert environment("--set", "watch.mode=namespaces")["DPORUN_NAMESPACES"] == "dporun-system"


@pytest.mark.parametrize("variant", ["defaults", "namespaced"])
def test_rights_are_enumerated_and_leave_secrets_alone(variant: str) -> None:
    rules = [rule for role in of_kind(render(*VARIANTS[variant]), "Role", "ClusterRole") for rule in role["rules"]]
    for rule in rules:
        words = [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
        assert not any("*" in word for word in words), rule
        assert not {"secrets", "pods/exec", "roles", "clusterroles", "serviceaccounts/token"} & set(words), rule


def test_pods_are_watched_and_never_changed() -> None:
    rules = [rule for role in of_kind(render(), "ClusterRole") for rule in role["rules"]]
    verbs = {resource: set(rule["verbs"]) for rule in rules for resource in rule["resources"] if "pods" in resource}
    assert verbs == {"pods": {"list", "watch"}, "pods/log": {"get"}}


@pytest.mark.parametrize(
    ("arguments", "verbs"),
    [
        ((), [["get", "patch"]]),
        (("--set", "rbac.retainVolumes=false"), []),
        (VARIANTS["namespaced"], []),
    ],
    ids=["cluster", "turned off", "namespaced"],
)
def test_volumes_can_be_retained_in_cluster_mode(arguments: tuple[str, ...], verbs: list[list[str]]) -> None:
    rules = [rule for role in of_kind(render(*arguments), "Role", "ClusterRole") for rule in role["rules"]]
    assert [rule["verbs"] for rule in rules if "persistentvolumes" in rule["resources"]] == verbs


def test_users_of_the_built_in_roles_may_use_dporuns() -> None:
    labels = {
        label
        for role in of_kind(render(), "ClusterRole")
        for label in role["metadata"]["labels"]
        if label.startswith("rbac.authorization.k8s.io/aggregate-to-")
    }
    assert {label.rpartition("-")[2] for label in labels} == {"view", "edit", "admin"}


@pytest.mark.parametrize("kind", ["Deployment", "Pod"])
def test_pods_satisfy_pod_security_restricted(kind: str) -> None:
    (owner,) = of_kind(render(), kind)
    pod = owner["spec"]["template"]["spec"] if kind == "Deployment" else owner["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in pod["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        }


def test_a_new_operator_stands_by_before_the_old_one_stops() -> None:
    (deployment,) = of_kind(render(), "Deployment")
    assert deployment["spec"]["replicas"] == 1
    assert deployment["spec"]["strategy"] == {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}


@pytest.mark.parametrize(
    ("arguments", "namespace"),
    [
        ((), "kube-system"),
        (("--set", "watch.mode=namespaces", "--set", "watch.namespaces={team-a,team-b}"), "dporun-system"),
        (("--set", "lease.namespace=shared"), "shared"),
    ],
)
def test_operators_of_the_same_runs_share_a_lease(arguments: tuple[str, ...], namespace: str) -> None:
    """Its rights are for this one Lease, in this one namespace."""
    assert environment(*arguments)["DPORUN_LEASE_NAMESPACE"] == namespace
    rules = {
        role["metadata"]["namespace"]: rule
        for role in of_kind(render(*arguments), "Role", "ClusterRole")
        for rule in role["rules"]
        if rule["resources"] == ["leases"] and rule["verbs"] != ["create"]
    }
    assert {place: (rule["resourceNames"], rule["verbs"]) for place, rule in rules.items()} == {
        namespace: (["dporun-operator"], ["get", "patch"])
    }


CHANGED = (
    "--set", "trainerImage.repository=team/trainer,trainerImage.tag=v7,trainerImage.pullPolicy=Never",
    "--set", "trainerImage.allowed={registry.example.com/*}",
    "--set", "watch.mode=namespaces,watch.namespaces={team-a}",
    "--set", "defaults.imagePullSecrets={pull},defaults.resources.train.requests.cpu=3",
    "--set", "defaults.resources.prepare.limits.memory=9Gi,defaults.resources.archive.limits.memory=3Gi",
    "--set", "defaults.resources.tensorboard.limits.memory=2Gi,defaults.trainEnvironment.NCCL_DEBUG=INFO",
    "--set", "timing.progressSeconds=1,timing.resyncSeconds=60,timing.imagePullSeconds=90",
    "--set", "timing.leaseSeconds=9,lease.namespace=shared",
    "--set", "metrics.port=9090,logging.level=DEBUG",
)  # fmt: skip
"""Another value for every setting that the chart knows."""

NOT_OF_THE_CHART = {"progress_via": "only an operator outside the cluster asks through the API server"}


def settings(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> dict[str, Any]:
    """The settings of an operator that starts in the environment that the chart gives it."""
    for name, value in {**environment(*arguments), "KUBERNETES_SERVICE_HOST": "10.0.0.1"}.items():
        monkeypatch.setenv(name, value)
    return Settings.from_env().model_dump()


def test_the_operator_understands_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    found = settings(monkeypatch, *CHANGED)
    assert found["trainer_image"] == "team/trainer:v7"
    assert found["image_pull_policy"] == "Never"
    assert found["image_allow_list"] == ("registry.example.com/*",)
    assert found["image_pull_secrets"] == ("pull",)
    assert found["train_resources"] == {"requests": {"cpu": "3", "memory": "4Gi"}}
    assert (found["port"], found["log_level"], found["progress_via"]) == (9090, "DEBUG", "pod")


def test_the_defaults_are_those_of_the_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    found = settings(monkeypatch)
    assert found == Settings(trainer_image=found["trainer_image"]).model_dump()


def test_every_setting_can_be_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    default = Settings(trainer_image="dporun/trainer:0.1.0").model_dump()
    changed = settings(monkeypatch, *CHANGED)
    assert {name for name in default if changed[name] == default[name]} == set(NOT_OF_THE_CHART)


def test_every_variable_is_a_setting() -> None:
    known = {f"{ENV_PREFIX}{name.upper()}" for name in set(Settings.model_fields) - set(NOT_OF_THE_CHART)}
    assert {name for name in environment(*CHANGED) if name.startswith(ENV_PREFIX)} == known


@pytest.mark.parametrize(
    ("settings", "reference"),
    [
        ("image.tag=v2", "dporun/operator:v2"),
        ("image.registry=mirror.example.com:5000", "mirror.example.com:5000/dporun/operator:0.1.0"),
        (f"image.digest=sha256:{'0' * 64}", f"dporun/operator@sha256:{'0' * 64}"),
    ],
)
def test_image_references(settings: str, reference: str) -> None:
    (container,) = operator("--set", settings)["containers"]
    assert container["image"] == reference


def test_the_pod_monitor_waits_for_its_crd() -> None:
    enabled = ("--set", "metrics.podMonitor.enabled=true")
    assert not of_kind(render(*enabled), "PodMonitor")
    assert of_kind(render(*enabled, "--api-versions=monitoring.coreos.com/v1/PodMonitor"), "PodMonitor")
    assert of_kind(render(*enabled, "--set", "metrics.podMonitor.renderMode=always"), "PodMonitor")


def test_the_notes_lead_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with control_plane(tmp_path) as kubeconfig:
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
        kubectl("delete", "crd", "dporuns.dporun.io")
        text = helm("install", "dporun", str(CHART), "--namespace", "team-a", "--dry-run=client")
        notes = text.partition("NOTES:")[2]
        assert "kubectl wait -n default dporun/my-first-run --for=condition=Finished" in notes
        assert "kind: DPORun" in notes
        assert "WARNING" not in notes
        text = helm("install", "dporun", str(CHART), "--dry-run=client", "--set", "crds.enabled=false")
        assert "WARNING: crds.enabled is false and this cluster has no DPORun" in text


def test_an_old_cluster_is_refused() -> None:
    with pytest.raises(AssertionError, match="kubeVersion"):
        helm("template", "dporun", str(CHART), "--kube-version=1.28")


def test_the_packaged_chart_is_whole(tmp_path: Path) -> None:
    """The CRD is a symbolic link in the checkout and a file in the package."""
    helm("package", str(CHART), "--destination", str(tmp_path))
    (package,) = tmp_path.iterdir()
    rendered = helm("template", "dporun", str(package), "--kube-version=1.29")
    assert "name: dporuns.dporun.io" in rendered
    assert package.stat().st_size < 500_000
