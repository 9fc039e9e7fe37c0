"""The servers that make up the node, in starting order: what each runs, and how one sees that it serves."""

import os
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from node import settings
from node.console import ask
from node.settings import ADDRESS, CONFIG, KUBECONFIG, PKI, RUN, STATE


@dataclass(frozen=True)
class Component:
    """A server: its program with its arguments, and the check that tells when the next one may start."""

    name: str
    argv: tuple[str, ...]
    ready: Callable[[], bool] = lambda: True
    environment: dict[str, str] = field(default_factory=dict)
    grace_seconds: float = 10


def components(binaries: Path, s3_secret: str) -> list[Component]:
    """Every server of the node, in starting order."""

    def program(name: str, *arguments: object, **rest: object) -> Component:
        return Component(name, (str(binaries / name), *map(str, arguments)), **rest)  # type: ignore[arg-type]

    return [
        program(
            "etcd",
            "--data-dir", STATE / "etcd",
            "--listen-client-urls", settings.ETCD,
            "--advertise-client-urls", settings.ETCD,
            "--listen-peer-urls", settings.ETCD_PEER,
            "--initial-advertise-peer-urls", settings.ETCD_PEER,
            "--initial-cluster", f"default={settings.ETCD_PEER}",
            "--unsafe-no-fsync",  # a power cut may lose the cluster; it is one for tests
            ready=lambda: _answers(f"{settings.ETCD}/health"),
        ),
        program(
            "kube-apiserver",
            "--etcd-servers", settings.ETCD,
            "--bind-address", ADDRESS,
            "--advertise-address", ADDRESS,
            "--secure-port", settings.API_SERVER.rpartition(":")[2],
            "--cert-dir", PKI,
            "--service-cluster-ip-range", settings.SERVICE_CIDR,
            "--service-account-issuer", "https://kubernetes.default.svc",
            "--service-account-key-file", PKI / "service-accounts.key",
            "--service-account-signing-key-file", PKI / "service-accounts.key",
            "--token-auth-file", PKI / "tokens.csv",
            "--authorization-mode", "Node,RBAC",
            "--allow-privileged",
            "--kubelet-preferred-address-types", "InternalIP",
            "--kubelet-client-certificate", PKI / "kubelet-client.crt",
            "--kubelet-client-key", PKI / "kubelet-client.key",
            ready=lambda: _answers(f"{settings.API_SERVER}/readyz", PKI / "apiserver.crt"),
        ),
        program(
            "kube-controller-manager",
            "--kubeconfig", KUBECONFIG,
            "--bind-address", "127.0.0.1",
            "--service-account-private-key-file", PKI / "service-accounts.key",
            "--root-ca-file", PKI / "apiserver.crt",
            "--leader-elect=false",
            "--cluster-cidr", settings.POD_CIDR,
            "--allocate-node-cidrs=false",
        ),
        program("kube-scheduler", "--kubeconfig", KUBECONFIG, "--bind-address", "127.0.0.1", "--leader-elect=false"),
        program(
            "containerd",
            "--config", CONFIG / "containerd.toml",
            ready=lambda: ask(binaries / "ctr", "--address", settings.CONTAINERD_SOCKET, "version") is not None,
            grace_seconds=20,
        ),
        program(
            "registry",
            "serve", CONFIG / "registry.yaml",
            ready=lambda: _answers(f"http://{settings.REGISTRY}/v2/"),
            environment={"OTEL_TRACES_EXPORTER": "none"},
        ),
        program("coredns", "-conf", CONFIG / "Corefile", ready=lambda: _listens(ADDRESS, 53)),
        program(
            "versitygw",
            "--port", settings.S3.removeprefix("http://"),
            "--region", settings.S3_REGION,
            "--quiet",
            "posix", STATE / "s3",
            ready=lambda: _listens(ADDRESS, int(settings.S3.rpartition(":")[2])),
            environment={"ROOT_ACCESS_KEY": settings.S3_ACCESS_KEY, "ROOT_SECRET_KEY": s3_secret},
        ),
        program(
            "kubelet",
            "--config", CONFIG / "kubelet.yaml",
            "--kubeconfig", KUBECONFIG,
            "--hostname-override", settings.NODE,
            "--node-ip", ADDRESS,
            "--root-dir", STATE / "kubelet",
            "--cert-dir", PKI / "kubelet",
            ready=lambda: _node_is_ready(binaries / "kubectl"),
        ),
        program(
            "kube-proxy",
            "--config", CONFIG / "kube-proxy.yaml",
            ready=lambda: _listens(_first(settings.SERVICE_CIDR), 443),
        ),
        program(
            "provisioner",
            "--kubeconfig", KUBECONFIG,
            "--name", settings.STORAGE_PROVISIONER,
            "--root", STATE / "volumes",
        ),
    ]  # fmt: skip


def environment(binaries: Path) -> dict[str, str]:
    """What every component and every command on the node finds in its environment."""
    return {
        **os.environ,
        "PATH": f"{binaries}:/usr/sbin:/sbin:{os.environ['PATH']}",
        "KUBECONFIG": str(KUBECONFIG),
        "TMPDIR": str(RUN / "tmp"),
    }


def _node_is_ready(kubectl: Path) -> bool:
    wait = ("wait", "--for=condition=Ready", f"node/{settings.NODE}", "--timeout=1s")
    return ask(kubectl, "--kubeconfig", KUBECONFIG, *wait) is not None


def _first(cidr: str) -> str:
    return cidr.rpartition(".")[0] + ".1"


def _answers(url: str, certificate: Path | None = None) -> bool:
    try:
        context = ssl.create_default_context(cafile=str(certificate)) if certificate else None
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )
        with opener.open(url, timeout=2) as response:
            return bool(response.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def _listens(address: str, port: int) -> bool:
    try:
        with socket.create_connection((address, port), timeout=1):
            return True
    except OSError:
        return False
