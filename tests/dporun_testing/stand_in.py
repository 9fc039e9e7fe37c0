"""Runs of the stand-in trainer on the dev cluster: a namespace with a bucket, manifests, where their files are."""

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3

from dporun_testing.kubectl import get, kubectl, temporary_namespace
from dporun_testing.manifests import merged

SECRET = "s3"
KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL_S3", "AWS_REGION")
VOLUMES = Path(os.environ.get("DPORUN_STATE") or "/var/lib/dporun-devcluster") / "volumes"


@dataclass(frozen=True)
class Playground:
    """A namespace with a Secret, and a bucket of the same name."""

    name: str

    def manifest(self, name: str, **spec: Any) -> dict[str, Any]:
        """A run that needs next to nothing; ``spec`` is merged over it. An epoch takes five seconds."""
        base = {
            "image": os.environ["STAND_IN_IMAGE"],
            "model": {"uri": f"s3://{self.name}/model"},
            "dataset": {"train": f"s3://{self.name}/train.jsonl"},
            "training": {"epochs": 2},
            "resources": {"gpusPerNode": 0, "requests": {"cpu": "10m", "memory": "64Mi"}},
            "storage": {"size": "1Gi"},
            "tensorboard": {"enabled": False},
            "runPolicy": {"gracePeriodSeconds": 30},
            "archive": {"uri": f"s3://{self.name}/runs", "secretRef": {"name": SECRET}},
        }
        return {
            "apiVersion": "dporun.io/v1alpha1",
            "kind": "DPORun",
            "metadata": {"name": name},
            "spec": merged(base, spec),
        }

    def status(self, name: str) -> dict[str, Any]:
        """Status of a run; empty before it has one."""
        return dict(get("dporun", name, self.name).get("status", {}))


def give_secret(namespace: str, **changes: str) -> None:
    """Make or replace the Secret that the manifests name, with the keys of this shell."""
    keys = {key: os.environ[key] for key in KEYS} | changes
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": SECRET}, "stringData": keys}
    kubectl("apply", "--namespace", namespace, "--filename", "-", stdin=json.dumps(secret))


def suspend(run: str, namespace: str, *, on: bool) -> None:
    """Set ``spec.suspend``."""
    patch = json.dumps({"spec": {"suspend": on}})
    kubectl("patch", "dporun", run, "-n", namespace, "--type=merge", "-p", patch)


@contextmanager
def playground(prefix: str) -> Iterator[Playground]:
    """A namespace and a bucket, both removed at the end with the runs that are left."""
    name = f"{prefix}-{secrets.token_hex(3)}"
    boto3.client("s3").create_bucket(Bucket=name)
    with temporary_namespace(name):
        try:
            give_secret(name)
            yield Playground(name)
        finally:
            if not os.environ.get("KEEP_NAMESPACE"):
                let_go(name)
                empty_bucket(name)


def let_go(namespace: str) -> None:
    """Delete all runs of a namespace, whatever becomes of their results, and what they leave."""
    kubectl("delete", "dporuns", "--all", "-n", namespace, "--wait=false")
    for run in json.loads(kubectl("get", "dporuns", "-n", namespace, "-o", "json"))["items"]:
        uid = run["metadata"]["uid"]
        words = ("dporun", run["metadata"]["name"], f"dporun.io/force-release={uid}", "--overwrite")
        kubectl("annotate", *words, "-n", namespace)
    kubectl("wait", "dporuns", "--all", "--for=delete", "-n", namespace, "--timeout=120s")
    kubectl("delete", "pods", "--all", "-n", namespace, "--grace-period=0", "--force")
    for claim in kubectl("get", "pvc", "-n", namespace, "-o", "name").split():
        kubectl("patch", claim, "-n", namespace, "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
        kubectl("delete", claim, "-n", namespace, "--wait=false", "--ignore-not-found")


def empty_bucket(name: str) -> None:
    """Delete a bucket and everything in it."""
    bucket = boto3.resource("s3").Bucket(name)
    if bucket.creation_date:
        bucket.objects.all().delete()
        bucket.delete()
