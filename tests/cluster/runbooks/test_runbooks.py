"""Every page of docs/runbooks: the fault is brought about on the node, and the page is followed to the letter."""

import contextlib
import json
import os
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml

from dporun_testing.archives import verify
from dporun_testing.dev_cluster import devcluster
from dporun_testing.kubectl import apply, eventually, exists, get, kubectl
from dporun_testing.paths import CHART
from dporun_testing.runbook import follow
from dporun_testing.stand_in import Playground, give_secret, let_go, playground, suspend

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(os.environ.get("CLUSTER") == "current", reason="stops servers, which is for the dev cluster"),
]

RUN = "tone"
SYSTEM = "dporun-system"


@pytest.fixture(scope="module")
def s3() -> Any:
    return boto3.client("s3")


@pytest.fixture
def place(installed_operator: None) -> Iterator[Playground]:  # noqa: ARG001  wanted for what it does
    with playground("runbook") as place:
        yield place


def variables(place: Playground) -> dict[str, str]:
    return {"NAMESPACE": place.name, "RUN": RUN}


def start(place: Playground, **spec: Any) -> str:
    """Apply the run, and return its UID."""
    apply(place.manifest(RUN, **spec), place.name)
    return str(get("dporun", RUN, place.name)["metadata"]["uid"])


def wait(place: Playground, what: str, question: Callable[[dict[str, Any]], object], seconds: float = 120) -> None:
    """Wait until the status of the run is as wanted."""
    try:
        eventually(lambda: question(place.status(RUN)), seconds=seconds, what=what)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{kubectl('get', 'dporun', RUN, '-n', place.name, '-o', 'yaml')}") from None


def wait_checkpoint(place: Playground) -> None:
    wait(place, "a checkpoint", lambda status: status.get("bestCheckpoint"))


def reason(status: dict[str, Any], condition: str) -> str | None:
    return next((c["reason"] for c in status.get("conditions", ()) if c["type"] == condition), None)


def archive(place: Playground, uid: str) -> str:
    return f"s3://{place.name}/runs/{RUN}-{uid[:8]}"


def test_stuck_deletion(place: Playground, tmp_path: Path) -> None:
    start(place, training={"epochs": 100}, archive={"uri": f"s3://no-such-bucket-{place.name}/runs"})
    wait_checkpoint(place)
    kubectl("delete", "dporun", RUN, "-n", place.name, "--wait=false")
    wait(place, "the deletion is stuck", lambda status: "no-such-bucket" in status.get("message", ""))
    printed = follow("stuck-deletion", tmp_path, variables(place) | {"IMAGE": os.environ["TRAINER_IMAGE"]})
    assert "deletionPolicy" in printed, "the message of the run names the way out"
    assert list(tmp_path.glob(f"results-of-{RUN}/*/checkpoint-*/adapter_model.safetensors"))
    assert kubectl("get", "pvc", "-n", place.name, "-o", "name") == ""


def test_lost_s3(place: Playground, tmp_path: Path, s3: Any) -> None:
    uid = start(place)
    wait_checkpoint(place)
    devcluster("kill", "versitygw", "--signal", "TERM")

    def empty_it() -> None:
        boto3.resource("s3").Bucket(place.name).objects.all().delete()

    try:
        wait(place, "archiving is retried", lambda status: reason(status, "Archived") == "ArchiveRetrying")
        follow(
            "lost-s3",
            tmp_path,
            variables(place),
            acts={
                "Bring the store and the bucket back.": lambda: devcluster("start", "versitygw"),
                "The store is back, but empty": empty_it,
            },
        )
    finally:
        devcluster("start", "versitygw")
    verify(s3, archive(place, uid))
    assert not exists("dporun", RUN, place.name)


def test_credentials_rotated(place: Playground, tmp_path: Path, s3: Any) -> None:
    give_secret(place.name, AWS_SECRET_ACCESS_KEY="of yesterday")
    uid = start(place, training={"epochs": 1})
    wait(place, "the keys are refused", lambda status: "SignatureDoesNotMatch" in status.get("message", ""))
    keys = {
        "NEW_KEY_ID": os.environ["AWS_ACCESS_KEY_ID"],
        "NEW_SECRET_KEY": os.environ["AWS_SECRET_ACCESS_KEY"],
    }
    follow("credentials-rotated", tmp_path, variables(place) | keys)
    verify(s3, archive(place, uid))


def test_lost_volume(place: Playground, tmp_path: Path) -> None:
    uid = start(place, training={"epochs": 100})
    wait_checkpoint(place)
    suspend(RUN, place.name, on=True)
    wait(place, "it is suspended", lambda status: status.get("phase") == "Suspended")
    claim = f"{RUN}-results-{uid[:8]}"
    kubectl("delete", "pvc", claim, "-n", place.name, "--wait=false")
    kubectl("patch", "pvc", claim, "-n", place.name, "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
    eventually(lambda: not exists("pvc", claim, place.name), seconds=60, what="the claim is gone")
    suspend(RUN, place.name, on=False)
    wait(place, "the loss is told", lambda status: status.get("phase") == "Failed")
    printed = follow("lost-volume", tmp_path, variables(place))
    assert "VolumeLost" in printed
    assert get("dporun", RUN, place.name)["metadata"]["uid"] != uid


@pytest.fixture
def small_claim(place: Playground, tmp_path: Path) -> Iterator[str]:
    """A claim on a disk of 900 KiB, which holds one checkpoint and no more."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=900k,mode=0777", "tmpfs", disk], check=True)
    node = {"key": "kubernetes.io/hostname", "operator": "Exists"}
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": place.name},
        "spec": {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": "",
            "claimRef": {"namespace": place.name, "name": "small"},
            "local": {"path": str(disk)},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [node]}]}},
        },
    }
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "small"},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "",
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }
    try:
        apply(volume, place.name)
        apply(claim, place.name)
        yield "small"
    finally:
        kubectl("delete", "pv", place.name, "--ignore-not-found", "--wait=false")
        subprocess.run(["umount", "--lazy", disk], check=True)


def test_disk_full(place: Playground, small_claim: str, tmp_path: Path, s3: Any) -> None:
    uid = start(place, training={"epochs": 5}, storage={"claimName": small_claim, "size": None})
    wait(place, "the disk is full", lambda status: (status.get("failure") or {}).get("reason") == "DiskFull")
    printed = follow("disk-full", tmp_path, variables(place) | {"SIZE": "1Gi"})
    assert "DiskFull" in printed
    verify(s3, archive(place, uid))
    larger = get("dporun", f"{RUN}-larger", place.name)["spec"]
    assert larger["checkpoints"]["resumeFrom"]["uri"] == archive(place, uid)


def test_operator_gone(place: Playground, tmp_path: Path, s3: Any) -> None:
    uid = start(place, training={"epochs": 100})
    wait_checkpoint(place)
    with operator_uninstalled(tmp_path / "values.yaml") as values:
        kubectl("delete", "dporun", RUN, "-n", place.name, "--wait=false")
        follow("operator-gone", tmp_path, variables(place) | {"OPERATOR_NAMESPACE": SYSTEM, "VALUES": str(values)})
    verify(s3, archive(place, uid))


def test_deleted_namespace(place: Playground, tmp_path: Path) -> None:
    manifest = place.manifest(RUN, training={"epochs": 100})
    manifest["metadata"]["namespace"] = place.name
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(manifest), encoding="utf-8")
    start(place, training={"epochs": 100})
    wait_checkpoint(place)
    kubectl("delete", "namespace", place.name, "--wait=true", "--timeout=180s")
    again = f"{place.name}-again"
    settings = {"NEW_NAMESPACE": again, "IMAGE": os.environ["TRAINER_IMAGE"]}
    secrets = {"Make the Secrets that it names in the new namespace first.": lambda: give_secret(again)}
    try:
        printed = follow("deleted-namespace", tmp_path, variables(place) | settings, acts=secrets)
        assert "VolumeRetained" in printed
        with tarfile.open(tmp_path / "recovered.tar") as tar:
            assert "recovered/adapter_model.safetensors" in tar.getnames()
        moved = Playground(again)
        wait(moved, "it goes on", lambda status: "checkpoint-" in status.get("resumedFrom", ""))
    finally:
        let_go(again)
        kubectl("delete", "namespace", again, "--ignore-not-found", "--timeout=180s")
        for volume in json.loads(kubectl("get", "pv", "-o", "json"))["items"]:
            if volume["spec"].get("claimRef", {}).get("namespace") in {place.name, again}:
                kubectl("delete", "pv", volume["metadata"]["name"], "--wait=false")


def test_orphaned_claim(place: Playground, tmp_path: Path) -> None:
    start(place, training={"epochs": 100})
    wait_checkpoint(place)
    kubectl("delete", "dporun", RUN, "-n", place.name, "--wait=false")
    gone = '{"metadata":{"finalizers":null}}'
    kubectl("patch", "dporun", RUN, "-n", place.name, "--type=merge", "-p", gone)
    eventually(lambda: not exists("dporun", RUN, place.name), seconds=60, what="the run is gone without its archive")
    kubectl("delete", "pods", "-n", place.name, "-l", f"dporun.io/run={RUN}", "--grace-period=0", "--force")
    printed = follow("orphaned-claim", tmp_path, variables(place))
    assert "dporun.io/results" in printed


@contextlib.contextmanager
def operator_uninstalled(values: Path) -> Iterator[Path]:
    """Uninstall the operator; writes the values of its release, and installs it again if nobody has when it ends."""
    release = ["dporun-operator", "--namespace", SYSTEM]
    values.write_bytes(subprocess.check_output(["helm", "get", "values", *release, "--output", "yaml"]))
    subprocess.run(["helm", "uninstall", *release, "--wait"], check=True)
    try:
        yield values
    finally:
        if not exists("deployment", "dporun-operator", SYSTEM):
            subprocess.run(
                ["helm", "install", release[0], CHART, *release[1:], "--values", values, "--wait"], check=True
            )
