"""A control plane for all tests of this folder, and an operator with the rights that the chart gives it."""

import json
import secrets
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from dporun_testing.control_plane import control_plane, write_kubeconfig
from dporun_testing.kubectl import kubectl, temporary_namespace
from dporun_testing.operator_process import OperatorProcess, operators
from dporun_testing.paths import ROOT

SYSTEM = "dporun-system"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The kubeconfig of an administrator; kubectl uses it, too."""
    with control_plane(tmp_path_factory.mktemp("control-plane")) as kubeconfig, pytest.MonkeyPatch.context() as patch:
        patch.setenv("KUBECONFIG", str(kubeconfig))
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "played"}}
        kubectl("apply", "-f", "-", stdin=json.dumps(node))
        yield kubeconfig


@pytest.fixture(scope="module")
def service_account(cluster: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A kubeconfig with the rights of the operator's ServiceAccount, exactly as the chart gives them."""
    kubectl("create", "namespace", SYSTEM)
    rendered = subprocess.run(
        ["helm", "template", "dporun-operator", ROOT / "charts" / "dporun-operator", "--namespace", SYSTEM],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    kinds = {"ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"}
    documents = [document for document in yaml.safe_load_all(rendered) if document]
    objects = [document for document in documents if document["kind"] in kinds]
    kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(objects))
    (deployment,) = [document for document in documents if document["kind"] == "Deployment"]
    account = deployment["spec"]["template"]["spec"]["serviceAccountName"]
    token = kubectl("create", "token", account, "-n", SYSTEM, "--duration=2h").strip()
    server = json.loads(cluster.read_text(encoding="utf-8"))["clusters"][0]["cluster"]["server"]
    path = tmp_path_factory.mktemp("operator") / "kubeconfig"
    write_kubeconfig(path, server, token)
    return path


@pytest.fixture
def namespace(cluster: Path) -> Iterator[str]:  # noqa: ARG001  wanted for what it does
    """A namespace that enforces Pod Security *restricted*."""
    with temporary_namespace(f"team-{secrets.token_hex(3)}") as name:
        yield name


@pytest.fixture
def start_operator(service_account: Path, tmp_path: Path) -> Iterator[Callable[..., OperatorProcess]]:
    """Starts operators with the settings given; stops them at the end."""
    with operators(service_account, tmp_path) as start:
        yield start


@pytest.fixture
def operator(start_operator: Callable[..., OperatorProcess], namespace: str) -> OperatorProcess:
    """An operator that watches the test's namespace."""
    return start_operator(DPORUN_NAMESPACES=namespace)
