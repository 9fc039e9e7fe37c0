"""A workspace with the tiny example in it, and a run of it, for the end-to-end tests."""

import json
from dataclasses import dataclass, field
from typing import Any

import yaml

from dporun_testing.kubectl import get, kubectl
from dporun_testing.paths import ROOT


@dataclass
class Workspace:
    """A namespace and a bucket with examples/tiny in it."""

    namespace: str
    bucket: str

    def manifest(self, name: str, **spec: Any) -> dict[str, Any]:
        """The manifest of examples/tiny for this workspace; ``spec`` replaces or adds whole sections."""
        text = (ROOT / "examples/tiny/dporun.yaml").read_text(encoding="utf-8")
        manifest: dict[str, Any] = yaml.safe_load(text.replace("dporun-demo/", f"{self.bucket}/"))
        manifest["metadata"]["name"] = name
        for section, fields in spec.items():
            old = manifest["spec"].get(section)
            manifest["spec"][section] = {**old, **fields} if isinstance(old, dict) else fields
        return manifest


@dataclass
class Seen:
    """What was seen while the run trained."""

    phases: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    scalars: set[str] = field(default_factory=set)
    """Tags that TensorBoard listed through its Service."""


@dataclass
class FinishedRun:
    name: str
    workspace: Workspace
    seen: Seen

    def object(self) -> dict[str, Any]:
        return get("dporun", self.name, self.workspace.namespace)

    @property
    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = self.object()["status"]
        return status


def tensorboard_tags(run: str, namespace: str) -> set[str]:
    """Scalars of a run's TensorBoard as ``train/loss`` or ``validation/loss``, asked through its Service."""
    service = get("dporun", run, namespace)["status"]["tensorboard"]
    proxy = f"/api/v1/namespaces/{namespace}/services/{service['service']}:{service['port']}/proxy"
    tags: dict[str, dict[str, Any]] = yaml.safe_load(kubectl("get", "--raw", f"{proxy}/data/plugin/scalars/tags"))
    return {f"{part}/{tag}" for part, of_part in tags.items() for tag in of_part}


def archived(run: FinishedRun, s3: Any) -> dict[str, bytes]:
    """Every object of the run's archive, by path relative to its folder."""
    bucket, _, prefix = run.status["archive"]["uri"].removeprefix("s3://").partition("/")
    prefix = prefix.rstrip("/") + "/"
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    keys = [item["Key"] for page in pages for item in page.get("Contents", ())]
    return {key.removeprefix(prefix): s3.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys}


def inspection_pod(run: FinishedRun, command: str) -> dict[str, Any]:
    """A pod which looks at the run's volume."""
    namespace = run.workspace.namespace
    claims = json.loads(kubectl("get", "pvc", "--namespace", namespace, "--output", "json"))["items"]
    (claim,) = [
        c for c in claims if c["metadata"]["labels"].get("dporun.io/run-uid") == run.object()["metadata"]["uid"]
    ]
    pods = json.loads(kubectl("get", "pods", "--namespace", namespace, "--output", "json"))["items"]
    image = pods[0]["spec"]["containers"][0]["image"]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"{run.name}-inspect"},
        "spec": {
            "restartPolicy": "Never",
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 10001,
                "fsGroup": 10001,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "inspect",
                    "image": image,
                    "imagePullPolicy": "IfNotPresent",
                    "command": ["sh", "-c", command],
                    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                    "volumeMounts": [{"name": "results", "mountPath": "/results", "readOnly": True}],
                }
            ],
            "volumes": [{"name": "results", "persistentVolumeClaim": {"claimName": claim["metadata"]["name"]}}],
        },
    }


def exists_of_run(uid: str, namespace: str) -> list[str]:
    """Objects that a run left behind."""
    kinds = "jobs,pods,services,configmaps,pvc,deployments"
    listing = kubectl("get", kinds, "--namespace", namespace, "--selector", f"dporun.io/run-uid={uid}", "-o", "name")
    return listing.split()
