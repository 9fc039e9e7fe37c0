"""A real Kubernetes control plane of one's own: etcd, kube-apiserver and kube-controller-manager, but no node.

Jobs make real pods there, owners are garbage-collected and admission is enforced; the tests play scheduler and kubelet
by writing the status of pods.
"""

import json
import secrets
import shutil
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from dporun_testing.paths import ROOT
from dporun_testing.ports import free_ports
from dporun_testing.processes import running

START_SECONDS = 90
CRD = ROOT / "crds" / "dporuns.dporun.io.yaml"


@contextmanager
def control_plane(
    folder: Path, *, crd: Path = CRD, before_controllers: Callable[[str, Path], None] = lambda _etcd, _kubeconfig: None
) -> Iterator[Path]:
    """Start the control plane in ``folder``, install the CRD, and yield the path of an administrator's kubeconfig.

    Args:
        folder: for data and logs.
        crd: the CRD to install.
        before_controllers: called with etcd's address and the kubeconfig, before any controller sees what is there.

    """
    for program in ("etcd", "kube-apiserver", "kube-controller-manager", "kubectl"):
        assert shutil.which(program), f'no {program} on the PATH; run eval "$(hack/devcluster/devcluster env)"'
    client_port, peer_port, port, manager_port = free_ports(4)
    token, key, kubeconfig = secrets.token_hex(16), folder / "service-accounts.key", folder / "kubeconfig"
    subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True)
    (folder / "tokens.csv").write_text(f'{token},admin,admin,"system:masters"\n', encoding="utf-8")
    write_kubeconfig(kubeconfig, f"https://127.0.0.1:{port}", token)
    etcd, peer = f"http://127.0.0.1:{client_port}", f"http://127.0.0.1:{peer_port}"
    programs = {
        "etcd": [
            f"--data-dir={folder / 'etcd'}", f"--listen-client-urls={etcd}", f"--advertise-client-urls={etcd}",
            f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}", f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",
        ],
        "kube-apiserver": [
            f"--etcd-servers={etcd}", "--bind-address=127.0.0.1", f"--secure-port={port}", f"--cert-dir={folder}",
            "--service-cluster-ip-range=10.96.0.0/16", "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={key}", f"--service-account-signing-key-file={key}",
            f"--token-auth-file={folder / 'tokens.csv'}", "--authorization-mode=RBAC",
        ],
        "kube-controller-manager": [
            f"--kubeconfig={kubeconfig}", "--bind-address=127.0.0.1", f"--secure-port={manager_port}",
            f"--service-account-private-key-file={key}", f"--root-ca-file={folder / 'apiserver.crt'}",
            f"--cert-dir={folder}", "--leader-elect=false",
        ],
    }  # fmt: skip
    with ExitStack() as stack:
        for name, arguments in programs.items():
            path = folder / f"{name}.log"
            log = stack.enter_context(path.open("wb"))
            stack.enter_context(running([name, *arguments], stdout=log, stderr=log, start_new_session=True))
            if name == "kube-apiserver":
                _wait_until_ready(port, path)
                install_crd(kubeconfig, crd)
                before_controllers(etcd, kubeconfig)
        yield kubeconfig


def install_crd(kubeconfig: Path, crd: Path = CRD) -> None:
    """Install a CRD, or replace the one that is there, and wait until its resource is served."""
    subprocess.run(["kubectl", "--kubeconfig", kubeconfig, "apply", "--server-side", "-f", crd], check=True)
    _wait_until_served(kubeconfig)


def write_kubeconfig(path: Path, server: str, token: str) -> None:
    """Write a kubeconfig for the bearer of ``token``."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "here", "cluster": {"server": server, "insecure-skip-tls-verify": True}}],
        "users": [{"name": "me", "user": {"token": token}}],
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
        "current-context": "here",
    }
    path.write_text(json.dumps(config), encoding="utf-8")


def _wait_until_ready(port: int, log: Path) -> None:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"https://127.0.0.1:{port}/readyz", context=context, timeout=2):
                return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"the API server is not ready:\n{log.read_text(encoding='utf-8')[-3000:]}")


def _wait_until_served(kubeconfig: Path) -> None:
    """Wait for the CRD's resource; ``kubectl wait`` stumbles over a CRD that has no conditions yet."""
    deadline = time.monotonic() + START_SECONDS
    question = ["kubectl", "--kubeconfig", str(kubeconfig), "get", "dporuns", "--all-namespaces"]
    while (answer := subprocess.run(question, capture_output=True, text=True, check=False)).returncode:
        assert time.monotonic() < deadline, answer.stderr
        time.sleep(0.2)
