"""Every object that the operator plans is what the API server's schema and Pod Security *restricted* accept."""

import json
from typing import Any

import pytest

from dporun_operator.objects.archive_job import archive_job
from dporun_operator.objects.config_map import config_map
from dporun_operator.objects.prepare_job import prepare_job
from dporun_operator.objects.results_claim import results_claim
from dporun_operator.objects.tensorboard import tensorboard_deployment, tensorboard_service
from dporun_operator.objects.train_job import train_job
from dporun_operator.objects.train_service import train_service
from dporun_operator.run import Manifest, Run
from dporun_testing.builders import SETTINGS, a_run
from dporun_testing.kubectl import KubectlError, kubectl

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("cluster")]

RUNS: dict[str, dict[str, Any]] = {
    "least": {},
    "everything": {
        "model": {"uri": "pvc://models/llama", "secretRef": {"name": "hub"}},
        "dataset": {"train": "pvc://data/train.jsonl", "secretRef": {"name": "data"}},
        "distributed": {"nodes": 4},
        "resources": {
            "gpusPerNode": 8,
            "requests": {"cpu": "8", "memory": "64Gi"},
            "limits": {"memory": "64Gi"},
            "nodeSelector": {"gpu": "h100"},
            "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60}],
            "shmSize": "16Gi",
        },
        "scheduling": {"queueName": "team-a"},
        "storage": {"accessModes": ["ReadWriteMany"], "storageClassName": "fast", "size": "1Ti"},
        "archive": {"uri": "s3://bucket/runs", "secretRef": {"name": "s3"}},
    },
    "bare": {
        "resources": {"gpusPerNode": 0, "requests": {}, "limits": {}},
        "storage": {"claimName": "shared"},
        "tensorboard": {"enabled": False},
        "archive": {"uri": "s3://bucket/runs", "serviceAccountName": "archiver"},
    },
}


def planned(run: Run) -> list[Manifest]:
    return [
        *([] if run.spec.storage.claim_name else [results_claim(run)]),
        config_map(run, SETTINGS),
        train_service(run),
        prepare_job(run, SETTINGS, 1),
        train_job(run, SETTINGS, 1),
        archive_job(run, SETTINGS, 1),
        archive_job(run, SETTINGS, 2, prune_only=True),
        tensorboard_service(run),
        tensorboard_deployment(run, SETTINGS),
    ]


def dry_run(manifest: Manifest) -> None:
    kubectl("create", "--dry-run=server", "--validate=strict", "-f", "-", stdin=json.dumps(manifest))


@pytest.mark.parametrize("name", ["demo", "0.with.dots-" + "and-a-long-name." * 14 + "z"])
@pytest.mark.parametrize("spec", RUNS)
def test_the_api_server_accepts_what_is_planned(spec: str, name: str, namespace: str) -> None:
    run = a_run(RUNS[spec], namespace=namespace, name=name)
    for manifest in planned(run):
        dry_run(manifest)
        template = manifest["spec"].get("template") if "spec" in manifest else None
        if template:  # Pod Security refuses pods, but only warns of what makes them
            template["spec"]["serviceAccountName"] = "default"
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one", "namespace": namespace}, **template}
            pod["metadata"] = {**template["metadata"], "name": "one", "namespace": namespace}
            dry_run(pod)


def test_a_field_that_does_not_exist_would_be_seen(namespace: str) -> None:
    job = train_job(a_run(namespace=namespace), SETTINGS, 1)
    job["spec"]["template"]["spec"]["shareEverything"] = True
    with pytest.raises(KubectlError, match="shareEverything"):
        dry_run(job)


def test_a_pod_that_is_not_restricted_would_be_seen(namespace: str) -> None:
    template = train_job(a_run(namespace=namespace), SETTINGS, 1)["spec"]["template"]
    template["spec"]["containers"][0] = {**template["spec"]["containers"][0], "securityContext": {}}
    pod = {"apiVersion": "v1", "kind": "Pod", **template, "metadata": {"name": "one", "namespace": namespace}}
    with pytest.raises(KubectlError, match="violates PodSecurity"):
        dry_run(pod)
