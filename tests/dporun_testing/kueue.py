"""A real Kueue on a control plane of one's own: its CRDs, its webhooks and its controller."""

import base64
import contextlib
import fcntl
import json
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from dporun_testing.kubectl import KubectlError, eventually, kubectl
from dporun_testing.ports import free_port
from dporun_testing.processes import running
from dporun_testing.s3_server import cache_folder, go_tool

MODULE = "sigs.k8s.io/kueue"
VERSION = "v0.14.0"
SUM = "h1:lDR34L42/k17opLfkZbZ+taymLaPpryj3ZBbvKqs/N4="
"""Hash of the module's files, as go.sum has it."""

_WEBHOOKS = {"mjob.kb.io", "vjob.kb.io", "mworkload.kb.io", "vworkload.kb.io", "mclusterqueue.kb.io",
             "vclusterqueue.kb.io", "mresourceflavor.kb.io", "vresourceflavor.kb.io"}  # fmt: skip
"""Those of batch Jobs and of Kueue's own objects; the others are for kinds that are not installed."""


def program() -> tuple[Path, Path]:
    """The controller, built here once, and the module's folder with the manifests that belong to it."""
    with tempfile.TemporaryDirectory() as empty:  # outside any module, so that no go.mod is asked
        answer = subprocess.run(
            [go_tool(), "mod", "download", "-json", f"{MODULE}@{VERSION}"],
            cwd=empty, check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip
    found = json.loads(answer)
    assert found["Sum"] == SUM, f"{MODULE}@{VERSION} is not what it was: {found['Sum']}"
    module, path = Path(found["Dir"]), cache_folder() / f"kueue-{VERSION}"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            partial = path.with_suffix(".partial")
            subprocess.run(
                [go_tool(), "build", "-buildvcs=false", "-ldflags=-s -w", "-o", partial, "./cmd/kueue"],
                cwd=module,
                env={**os.environ, "CGO_ENABLED": "0"},
                check=True,
            )
            partial.rename(path)
    return path, module


@contextlib.contextmanager
def serve(kubeconfig: Path, folder: Path) -> Iterator[None]:
    """Install Kueue and run its controller until the block ends."""
    kueue, module = program()
    components = module / "config" / "components"
    kubectl("apply", "--server-side", "-f", str(components / "crd" / "bases"))
    eventually(_served, seconds=60, what="Kueue's kinds are served")
    kubectl("create", "namespace", "kueue-system")
    port = free_port()
    _certify(folder)
    configuration = {
        "apiVersion": "config.kueue.x-k8s.io/v1beta1",
        "kind": "Configuration",
        "health": {"healthProbeBindAddress": "127.0.0.1:0"},
        "metrics": {"bindAddress": "0"},
        "webhook": {"host": "127.0.0.1", "port": port, "certDir": str(folder)},
        "leaderElection": {"leaderElect": False},
        "internalCertManagement": {"enable": False},
        "integrations": {"frameworks": ["batch/job"]},
        "namespace": "kueue-system",
    }
    (folder / "kueue.yaml").write_text(yaml.safe_dump(configuration), encoding="utf-8")
    log = folder / "kueue.log"
    command = [
        *_with_certificates_of_metrics(folder), kueue,
        f"--config={folder / 'kueue.yaml'}", "--feature-gates=VisibilityOnDemand=false",
    ]  # fmt: skip
    environment = {**os.environ, "KUBECONFIG": str(kubeconfig)}
    with log.open("wb") as output, running(command, env=environment, stdout=output, stderr=output) as process:

        def listens() -> bool:
            assert process.poll() is None, log.read_text(encoding="utf-8")[-3000:]
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return True
            return False

        eventually(listens, seconds=60, what="Kueue serves its webhooks")
        _install_webhooks(components / "webhook" / "manifests.yaml", port, folder / "tls.crt")
        yield


def quota(name: str, namespace: str, **amounts: str | int) -> None:
    """A LocalQueue ``name`` in ``namespace``, with a ClusterQueue of the same name that has ``amounts`` and preempts.

    Resources that are not named are there in plenty.
    """
    every = {"cpu": "1000", "memory": "1000Ti", "nvidia.com/gpu": "0", **amounts}
    queue_name = f"{namespace}-{name}"
    objects: list[dict[str, Any]] = [
        {"kind": "ResourceFlavor", "metadata": {"name": "default"}},
        {
            "kind": "ClusterQueue",
            "metadata": {"name": queue_name},
            "spec": {
                "namespaceSelector": {},
                "preemption": {"withinClusterQueue": "LowerPriority"},
                "resourceGroups": [
                    {
                        "coveredResources": list(every),
                        "flavors": [
                            {
                                "name": "default",
                                "resources": [{"name": key, "nominalQuota": amount} for key, amount in every.items()],
                            }
                        ],
                    }
                ],
            },
        },
        {
            "kind": "LocalQueue",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"clusterQueue": queue_name},
        },
    ]
    documents = yaml.safe_dump_all([{"apiVersion": "kueue.x-k8s.io/v1beta1", **document} for document in objects])

    def applied() -> bool:
        with contextlib.suppress(KubectlError):  # its webhooks are called some time after they were installed
            return bool(kubectl("apply", "-f", "-", stdin=documents))
        return False

    eventually(applied, seconds=30, what=f"queue {name} is there")


def _served() -> bool:
    with contextlib.suppress(KubectlError):
        for plural in ("workloads", "clusterqueues", "localqueues", "resourceflavors", "cohorts", "admissionchecks"):
            kubectl("get", f"{plural}.kueue.x-k8s.io", "--all-namespaces")
        return True
    return False


def _with_certificates_of_metrics(folder: Path) -> list[str | Path]:
    """Start of a command that sees ``folder``'s certificate where Kueue insists on one, metrics or not: below /etc."""
    upper, work = folder / "etc", folder / "work"
    (upper / "kueue" / "metrics").mkdir(parents=True)
    work.mkdir()
    (upper / "kueue" / "metrics" / "certs").symlink_to(folder)
    mount = f'mount -t overlay overlay -o "lowerdir=/etc,upperdir={upper},workdir={work}" /etc && exec "$@"'
    return ["unshare", "--mount", "sh", "-c", mount, "kueue"]


def _certify(folder: Path) -> None:
    """A certificate of one's own for 127.0.0.1."""
    openssl = shutil.which("openssl")
    assert openssl, "no openssl on the PATH"
    command = [
        openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=kueue",
        "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", folder / "tls.key", "-out", folder / "tls.crt",
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)


def _install_webhooks(manifests: Path, port: int, certificate: Path) -> None:
    """Kueue's webhooks, called at this machine rather than at a Service."""
    bundle = base64.b64encode(certificate.read_bytes()).decode()
    documents = list(yaml.safe_load_all(manifests.read_text(encoding="utf-8")))
    for document in documents:
        document["metadata"]["name"] = f"kueue-{document['metadata']['name']}"
        document["webhooks"] = [webhook for webhook in document["webhooks"] if webhook["name"] in _WEBHOOKS]
        for webhook in document["webhooks"]:
            path = webhook["clientConfig"]["service"]["path"]
            webhook["clientConfig"] = {"url": f"https://127.0.0.1:{port}{path}", "caBundle": bundle}
    kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(documents))
