"""What the dev cluster promises the rest of the project, seen from inside its pods."""

import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from dporun_testing.kubectl import apply, eventually, exists, get, kubectl, temporary_namespace

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(os.environ.get("CLUSTER") == "current", reason="about the dev cluster, not about yours"),
]

RESTRICTED = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}


@pytest.fixture(scope="module")
def namespace() -> Iterator[str]:
    with temporary_namespace(f"devcluster-{secrets.token_hex(3)}") as name:
        yield name


def container(program: str, **fields: Any) -> dict[str, Any]:
    """A container that runs a Python program as Pod Security *restricted* wants it."""
    return {
        "name": "main",
        "image": os.environ["OPERATOR_IMAGE"],
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-c", program],
        "securityContext": RESTRICTED,
        **fields,
    }


def pod_spec(*containers: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 1,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 1000,
            "fsGroup": 1000,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": list(containers),
        **fields,
    }


def start(name: str, namespace: str, spec: dict[str, Any]) -> None:
    metadata = {"name": name, "labels": {"app": name}}
    apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}, namespace)


def finish(name: str, namespace: str) -> str:
    """What the pod printed, once it has succeeded."""

    def ended() -> bool:
        return get("pod", name, namespace)["status"].get("phase") in {"Succeeded", "Failed"}

    eventually(ended, seconds=60, what=f"pod {name} ends: {kubectl('describe', 'pod', name, '-n', namespace)}")
    output = kubectl("logs", name, "-n", namespace)
    assert get("pod", name, namespace)["status"]["phase"] == "Succeeded", output
    return output


def test_the_node_is_ready() -> None:
    (node,) = json.loads(kubectl("get", "nodes", "-o", "json"))["items"]
    assert {condition["type"]: condition["status"] for condition in node["status"]["conditions"]}["Ready"] == "True"
    assert int(node["status"]["allocatable"]["nvidia.com/gpu"]) > 0


def test_a_volume_outlives_its_pod_and_not_its_claim(namespace: str) -> None:
    """A pod without root may write to it."""
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    apply(claim, namespace)
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]
    mounts = [{"name": "data", "mountPath": "/data"}]
    write = container("import os; open('/data/x', 'w').write('kept'); os.mkdir('/data/folder')", volumeMounts=mounts)
    start("writer", namespace, pod_spec(write, volumes=volumes))
    finish("writer", namespace)
    read = container("print(open('/data/x').read())", volumeMounts=mounts)
    start("reader", namespace, pod_spec(read, volumes=volumes))
    assert finish("reader", namespace).strip() == "kept"

    volume = get("pvc", "data", namespace)["spec"]["volumeName"]
    folder = Path(get("pv", volume, namespace)["spec"]["local"]["path"])
    assert folder.exists()
    kubectl("delete", "pod/writer", "pod/reader", "pvc/data", "-n", namespace)
    eventually(lambda: not exists("pv", volume, namespace), seconds=30, what="the volume is reclaimed")
    assert not folder.exists()


def test_a_service_answers_by_its_name(namespace: str) -> None:
    serve = container("import http.server as h; h.test(h.SimpleHTTPRequestHandler, port=8080)", workingDir="/tmp")
    serve["readinessProbe"] = {"tcpSocket": {"port": 8080}, "periodSeconds": 1}
    start("server", namespace, pod_spec(serve))
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "server"},
        "spec": {"selector": {"app": "server"}, "ports": [{"port": 80, "targetPort": 8080}]},
    }
    headless = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "headless"},
        "spec": {"clusterIP": "None", "selector": {"app": "server"}},
    }
    apply(service, namespace)
    apply(headless, namespace)
    kubectl("wait", "pod/server", "--for=condition=Ready", "--timeout=60s", "-n", namespace)
    ask = f"""
import socket, urllib.request
print(urllib.request.urlopen("http://server.{namespace}.svc.cluster.local", timeout=10).status)
print(socket.gethostbyname("headless"))
print(urllib.request.urlopen(urllib.request.Request("https://kubernetes.default/version"),
      context=__import__("ssl")._create_unverified_context(), timeout=10).status)
"""
    start("client", namespace, pod_spec(container(ask)))
    address = get("pod", "server", namespace)["status"]["podIP"]
    assert finish("client", namespace).split() == ["200", address, "200"]


def test_a_pod_gets_a_gpu_until_there_are_no_more(namespace: str) -> None:
    capacity = int(
        json.loads(kubectl("get", "nodes", "-o", "json"))["items"][0]["status"]["allocatable"]["nvidia.com/gpu"]
    )
    for name, count in (("one-gpu", 1), ("too-many-gpus", capacity + 1)):
        start(name, namespace, pod_spec(container("", resources={"limits": {"nvidia.com/gpu": count}})))
    finish("one-gpu", namespace)
    (condition,) = get("pod", "too-many-gpus", namespace)["status"]["conditions"]
    assert condition["reason"] == "Unschedulable"
    assert "Insufficient nvidia.com/gpu" in condition["message"]


def test_s3_is_reached_from_the_host_and_from_pods(namespace: str) -> None:
    s3 = boto3.client("s3")
    bucket = f"devcluster-{secrets.token_hex(3)}"
    s3.create_bucket(Bucket=bucket)
    try:
        s3.put_object(Bucket=bucket, Key="a/b", Body=b"bytes")
        signer = boto3.client("s3", config=Config(signature_version="s3v4"))
        url = signer.generate_presigned_url("get_object", {"Bucket": bucket, "Key": "a/b"})
        read = f"import urllib.request; print(urllib.request.urlopen({url!r}).read())"
        start("s3", namespace, pod_spec(container(read)))
        assert "b'bytes'" in finish("s3", namespace)
    finally:
        s3.delete_object(Bucket=bucket, Key="a/b")
        s3.delete_bucket(Bucket=bucket)


def test_a_job_ends_although_its_native_sidecar_runs_on(namespace: str) -> None:
    sidecar = container("import signal; signal.pause()", name="sidecar", restartPolicy="Always")
    spec = pod_spec(container("print('done')"), initContainers=[sidecar])
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "job"}, "spec": {"template": {"spec": spec}}}
    apply(job, namespace)
    kubectl("wait", "job/job", "--for=condition=Complete", "--timeout=60s", "-n", namespace)


def test_too_much_memory_is_killed(namespace: str) -> None:
    greedy = container("x = b'x' * (256 << 20)", resources={"limits": {"memory": "64Mi"}})
    start("greedy", namespace, pod_spec(greedy))
    eventually(
        lambda: get("pod", "greedy", namespace)["status"].get("phase") == "Failed", seconds=60, what="the pod is killed"
    )
    (status,) = get("pod", "greedy", namespace)["status"]["containerStatuses"]
    assert status["state"]["terminated"]["reason"] == "OOMKilled"


def test_logs_and_exec_need_the_api_server(namespace: str) -> None:
    """The kubelet, which pods can reach, serves nobody else."""
    addresses = json.loads(kubectl("get", "nodes", "-o", "json"))["items"][0]["status"]["addresses"]
    (address,) = (entry["address"] for entry in addresses if entry["type"] == "InternalIP")
    ask = f"""
import ssl, urllib.error, urllib.request
try:
    urllib.request.urlopen("https://{address}:10250/pods", context=ssl._create_unverified_context(), timeout=10)
except urllib.error.HTTPError as error:
    print(error.code)
"""
    start("intruder", namespace, pod_spec(container(ask)))
    assert finish("intruder", namespace).strip() == "401"
