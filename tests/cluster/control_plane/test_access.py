"""The way to the API server fails: rights, credentials, connections, the server itself. Runs go on when it is back."""

import contextlib
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dporun_testing import playing_kubelet as kubelet
from dporun_testing.control_plane import write_kubeconfig
from dporun_testing.kubectl import apply, eventually, get, kubectl, wait_condition
from dporun_testing.operator_process import ERRORS, HELD, OperatorProcess
from dporun_testing.played_run import ARCHIVED, PREPARED, TRAINED, manifest, status, wait_phase
from dporun_testing.processes import processes_of
from dporun_testing.tcp_proxy import forward

pytestmark = pytest.mark.cluster

SYSTEM = "dporun-system"


@contextlib.contextmanager
def notices(operator: OperatorProcess) -> Iterator[None]:
    """At the end of the block, wait until the operator has failed to do something or to keep its Lease."""
    before = operator.metric(ERRORS)
    yield
    eventually(
        lambda: operator.metric(ERRORS) > before or operator.metric(HELD) == 0, seconds=90, what="it fails at something"
    )


def begin(namespace: str) -> None:
    apply(manifest(tensorboard={"enabled": False}), namespace)
    kubelet.pod_of(namespace, "demo-prepare")
    wait_phase(namespace, "Preparing")


def go_on(namespace: str, seconds: int = 60) -> None:
    """From where prepare has ended to the end; the first step may take as long as ``seconds``."""
    eventually(lambda: kubelet.pods(namespace, "demo-train-1"), seconds=seconds, what="training begins")
    kubelet.end(namespace, "demo-train-1", TRAINED)
    kubelet.end(namespace, "demo-archive-1", ARCHIVED)
    wait_condition("demo", "Succeeded", namespace, seconds=60)


def server_port(kubeconfig: Path) -> int:
    server = json.loads(kubeconfig.read_text(encoding="utf-8"))["clusters"][0]["cluster"]["server"]
    return int(server.rpartition(":")[2])


@contextlib.contextmanager
def without_rights() -> Iterator[None]:
    """Take all of the operator's rights away, and give them back."""
    binding = get("clusterrolebinding", "dporun-operator", "")
    kept = {key: binding["metadata"][key] for key in ("name", "labels") if key in binding["metadata"]}
    kubectl("delete", "clusterrolebinding", "dporun-operator")
    try:
        yield
    finally:
        kubectl("create", "-f", "-", stdin=json.dumps({**binding, "metadata": kept}))


def test_rights_that_are_revoked_and_given_back(operator: OperatorProcess, namespace: str) -> None:
    begin(namespace)
    with without_rights(), notices(operator):
        kubelet.end(namespace, "demo-prepare", PREPARED)
    go_on(namespace)
    operator.ask("/healthz")


def test_etcd_stands_still(operator: OperatorProcess, namespace: str, cluster: Path) -> None:
    """Long enough for a request to fail; then everything is as it was."""
    begin(namespace)
    kubelet.end(namespace, "demo-prepare", PREPARED)
    (etcd,) = [pid for pid, command in processes_of(cluster.parent).items() if command.startswith("etcd ")]
    os.kill(etcd, signal.SIGSTOP)
    try:
        with notices(operator):
            pass
    finally:
        os.kill(etcd, signal.SIGCONT)
    go_on(namespace, seconds=120)


def test_connections_that_fall_silent(
    start_operator: Callable[..., OperatorProcess], service_account: Path, namespace: str, tmp_path: Path
) -> None:
    """Neither end is told: watches hear nothing more, requests get no answer. The resync finds what was missed."""
    config = json.loads(service_account.read_text(encoding="utf-8"))
    with forward(server_port(service_account)) as proxy:
        path = tmp_path / "through-a-proxy"
        write_kubeconfig(path, f"https://127.0.0.1:{proxy.port}", config["users"][0]["user"]["token"])
        start_operator(KUBECONFIG=str(path), DPORUN_NAMESPACES=namespace, DPORUN_RESYNC_SECONDS="5")
        begin(namespace)
        proxy.silence()
        kubelet.end(namespace, "demo-prepare", PREPARED)
        go_on(namespace, seconds=120)
        assert status(namespace)["attempt"] == 1


def in_a_pod(folder: Path) -> list[str | Path]:
    """Start of a command that sees ``folder`` where a pod has the token of its ServiceAccount."""
    mount = (
        "mount -t tmpfs tmpfs /run && mkdir -p /run/secrets/kubernetes.io/serviceaccount && "
        'mount --bind "$0" /run/secrets/kubernetes.io/serviceaccount && exec "$@"'
    )
    return ["unshare", "--mount", "sh", "-c", mount, folder]


def test_a_token_that_is_replaced(
    start_operator: Callable[..., OperatorProcess], cluster: Path, namespace: str, tmp_path: Path
) -> None:
    """The kubelet writes a new token long before the old one expires; whoever kept the old one would be locked out."""

    def write_token(secret: str) -> None:
        kubectl("create", "secret", "generic", secret, "-n", SYSTEM)
        bound = ("--bound-object-kind=Secret", f"--bound-object-name={secret}")
        token = kubectl("create", "token", "dporun-operator", "-n", SYSTEM, *bound)
        (folder / "token").write_text(token.strip(), encoding="utf-8")

    folder = tmp_path / "serviceaccount"
    folder.mkdir()
    (folder / "ca.crt").write_bytes((cluster.parent / "apiserver.crt").read_bytes())
    write_token("first")
    server = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(server_port(cluster))}
    operator = start_operator(through=in_a_pod(folder), DPORUN_NAMESPACES=namespace, KUBECONFIG="/none", **server)
    begin(namespace)
    write_token("second")
    with notices(operator):
        kubectl("delete", "secret", "first", "-n", SYSTEM)  # which revokes the token that is bound to it
    kubelet.end(namespace, "demo-prepare", PREPARED)
    go_on(namespace, seconds=180)
    kubectl("delete", "secret", "second", "-n", SYSTEM)
