"""Runs as a release left them in etcd: recorded once, and put back there for the operators of later releases.

They are put into etcd itself, because the API server would give them new UIDs and times and would not take their
status: the next operator finds just what it would find in a cluster that is upgraded.
"""

import base64
import json
import re
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from dporun_testing.kubectl import kubectl
from dporun_testing.paths import TESTS

RECORDED = TESTS / "cluster" / "control_plane" / "recorded"
"""A folder for each release, named after its version."""
NAMESPACE = "recorded"
CHILDREN = "persistentvolumeclaims,configmaps,services,deployments,jobs,pods"

MOMENT = datetime(2026, 1, 5, 10, 0, 0, tzinfo=UTC)
"""When everything was recorded: all times are moved, so that they say how long before that something was."""
_TIME = re.compile(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")

_STORED_AS = {
    "DPORun": "dporun.io/dporuns",
    "PersistentVolumeClaim": "persistentvolumeclaims",
    "ConfigMap": "configmaps",
    "Service": "services/specs",
    "Deployment": "deployments",
    "Job": "jobs",
    "Pod": "pods",
}
_APPLIED = {"DPORun", "ConfigMap", "Service", "Deployment", "PersistentVolumeClaim"}
"""Kinds whose managed fields matter: what is left out of the next server-side apply is taken away."""


class _OnFewLines(dict[str, Any]):
    """A mapping that nobody reads."""


class _Dumper(yaml.SafeDumper):
    pass


_Dumper.add_representer(
    _OnFewLines, lambda dumper, data: dumper.represent_mapping("tag:yaml.org,2002:map", data, flow_style=True)
)


def record(name: str, number: int) -> str:
    """A run of the namespace and its children, as YAML."""
    whole = ("-n", NAMESPACE, "-o", "json", "--show-managed-fields")
    run = json.loads(kubectl("get", "dporun", name, *whole))
    of_run = f"dporun.io/run-uid={run['metadata']['uid']}"
    children = json.loads(kubectl("get", CHILDREN, "-l", of_run, *whole))["items"]
    jobs = {child["metadata"]["name"] for child in children if child["kind"] == "Job"}
    kept = [child for child in children if child["kind"] != "Pod" or _job_of(child)]  # a Deployment makes its own anew
    text = json.dumps([_slim(item, jobs) for item in (run, *kept)])
    text = _TIME.sub(lambda found: _moved(found[0], MOMENT - datetime.now(UTC)), text)
    for index, item in enumerate((run, *kept)):
        text = text.replace(item["metadata"]["uid"], f"0a1b2c{number:02x}-0000-4000-8000-{index:012d}")
    text = text.replace(run["metadata"]["uid"][:8], f"0a1b2c{number:02x}")
    objects = json.loads(text)
    for item in objects:
        for entry in item["metadata"].get("managedFields", ()):
            entry["fieldsV1"] = _OnFewLines(entry["fieldsV1"])
    return yaml.dump_all(objects, Dumper=_Dumper, sort_keys=False, width=160, default_flow_style=None)


def restore(release: Path, etcd: str, kubeconfig: Path) -> None:
    """Put every recorded run of a release into etcd; no controller may run meanwhile."""
    kubectl("--kubeconfig", str(kubeconfig), "create", "namespace", NAMESPACE)
    for objects in recorded(release).values():
        templates = {item["metadata"]["name"]: item["spec"]["template"] for item in objects if item["kind"] == "Job"}
        for item in objects:
            if item["kind"] == "Pod":
                item["spec"] = {**templates.get(_job_of(item), {}).get("spec", {}), **item["spec"]}
            key = f"/registry/{_STORED_AS[item['kind']]}/{NAMESPACE}/{item['metadata']['name']}"
            _put(etcd, key, _TIME.sub(lambda found: _moved(found[0], datetime.now(UTC) - MOMENT), json.dumps(item)))


def recorded(release: Path) -> dict[str, list[dict[str, Any]]]:
    """The objects of a release by the name of their run, the run itself first."""
    files = sorted(path for path in release.glob("*.yaml") if path.name != "crd.yaml")
    return {path.stem: list(yaml.safe_load_all(path.read_text(encoding="utf-8"))) for path in files}


def _slim(item: dict[str, Any], jobs: set[str]) -> dict[str, Any]:
    """Without what is of no use: a pod has the spec of its Job, where that still exists."""
    metadata = {
        key: value for key, value in item["metadata"].items() if key not in {"resourceVersion", "managedFields"}
    }
    annotations = metadata.pop("annotations", {})
    annotations.pop("kubectl.kubernetes.io/last-applied-configuration", None)
    if annotations:
        metadata["annotations"] = annotations
    if item["kind"] in _APPLIED:
        ours = [entry for entry in item["metadata"]["managedFields"] if entry["manager"] == "dporun-operator"]
        metadata["managedFields"] = ours
    slim = {"apiVersion": item["apiVersion"], "kind": item["kind"], **item, "metadata": metadata}
    if item["kind"] == "Pod" and _job_of(item) in jobs:
        slim["spec"] = {key: item["spec"][key] for key in ("nodeName", "hostname") if key in item["spec"]}
    return slim


def _job_of(pod: dict[str, Any]) -> str | None:
    name: str | None = pod["metadata"]["labels"].get("batch.kubernetes.io/job-name")
    return name


def _moved(time: str, by: timedelta) -> str:
    return (datetime.fromisoformat(time) + by).strftime("%Y-%m-%dT%H:%M:%SZ")


def _put(etcd: str, key: str, value: str) -> None:
    """Write one key through etcd's JSON gateway."""
    body = {"key": base64.b64encode(key.encode()).decode(), "value": base64.b64encode(value.encode()).decode()}
    with urllib.request.urlopen(f"{etcd}/v3/kv/put", data=json.dumps(body).encode(), timeout=10) as answer:
        assert answer.status == 200
