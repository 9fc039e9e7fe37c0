"""The CRD on a real API server: what it refuses and in which words, what it fills in, what may change."""

import json
import secrets
from pathlib import Path
from typing import Any

import pytest
import yaml

from dporun_api.crd import custom_resource_definition
from dporun_api.v1alpha1.spec import DPORunSpec
from dporun_testing.kubectl import KubectlError, kubectl
from dporun_testing.manifests import dporun
from dporun_testing.paths import REFUSED

pytestmark = pytest.mark.cluster


FULL: dict[str, Any] = {
    "archive": {"uri": "s3://bucket/runs", "secretRef": {"name": "s3"}},
    "image": "registry.example.com/trainer:1",
}
"""Sections that have no default, so that they can change."""

IMMUTABLE: dict[str, Any] = {
    "model": {"revision": "main"},
    "dataset": {"validationFraction": 0.2},
    "dpo": {"beta": 0.2},
    "lora": {"rank": 8},
    "training": {"learningRate": 1e-5},
    "distributed": {"processesPerNode": 1},
    "resources": {"requests": {"cpu": 8}},
    "scheduling": {"queueName": "team-a"},
    "image": "registry.example.com/trainer:2",
    "storage": {"size": "10Gi"},
    "checkpoints": {"everySteps": 10},
    "evaluation": {"gates": {"accuracy": 0.5}},
    "archive.uri": "s3://bucket/other",
    "archive.endpoint": "https://minio.example.com",
    "archive.region": "eu-central-1",
    "archive.when": "Passed",
    "archive.include": ["best"],
    "archive.serviceAccountName": "archiver",
    "archive.retryForSeconds": 60,
    "runPolicy.maxRetries": 1,
    "runPolicy.activeDeadlineSeconds": 3600,
    "runPolicy.pendingDeadlineSeconds": 600,
    "runPolicy.stallSeconds": 600,
    "runPolicy.gracePeriodSeconds": 60,
}
MUTABLE: dict[str, Any] = {
    "suspend": True,
    "deletionPolicy": "Retain",
    "tensorboard": {"enabled": False, "ttlSecondsAfterFinished": 60},
    "runPolicy.ttlSecondsAfterFinished": 60,
    "archive.secretRef": {"name": "other"},
}


@pytest.fixture(scope="module")
def namespace(cluster: Path) -> str:  # noqa: ARG001  wanted for what it does
    """A namespace where no operator writes into the status of what is stored."""
    name = f"dporun-crd-{secrets.token_hex(3)}"
    kubectl("create", "namespace", name)
    return name


@pytest.fixture(scope="module")
def stored(namespace: str) -> str:
    """A run with every section."""
    kubectl("create", "--namespace", namespace, "--filename", "-", stdin=json.dumps(dporun("stored", FULL)))
    return "stored"


def created(body: dict[str, Any], namespace: str) -> dict[str, Any]:
    """``body`` as the API server would store it."""
    arguments = ("create", "--namespace", namespace, "--dry-run=server", "--output", "json", "--filename", "-")
    document: dict[str, Any] = json.loads(kubectl(*arguments, stdin=json.dumps(body)))
    return document


def patch(name: str, namespace: str, spec: dict[str, Any]) -> None:
    """Change the spec of a stored run, as a dry run."""
    text = json.dumps({"spec": spec})
    kubectl("patch", "dporun", name, "--namespace", namespace, "--dry-run=server", "--type=merge", "--patch", text)


def nested(path: str, value: object) -> dict[str, Any]:
    """``{"a": {"b": value}}`` for ``a.b``."""
    for key in reversed(path.split(".")):
        value = {key: value}
    assert isinstance(value, dict)
    return value


def test_the_cluster_has_the_crd_of_this_checkout(namespace: str) -> None:  # noqa: ARG001  needs the CRD
    (version,) = json.loads(kubectl("get", "crd", "dporuns.dporun.io", "--output", "json"))["spec"]["versions"]
    (ours,) = custom_resource_definition()["spec"]["versions"]
    assert version["schema"] == json.loads(json.dumps(ours["schema"]))


@pytest.mark.parametrize("case", REFUSED, ids=lambda path: path.stem)
def test_a_wrong_value_is_refused_with_what_to_write_instead(case: Path, namespace: str) -> None:
    expected = yaml.safe_load(case.read_text())
    with pytest.raises(KubectlError) as caught:
        created(dporun("wrong", expected["spec"]), namespace)
    assert expected["server"] in str(caught.value)


GATES = {"accuracy": 0.8, "rewardMargin": 2, "forgetting": 0.1, "betterThanBase": 0.05}


def test_defaults_are_visible_at_every_depth(namespace: str) -> None:
    spec = created(dporun("defaults"), namespace)["spec"]
    defaults = DPORunSpec.model_validate(dporun("defaults")["spec"])
    assert spec == defaults.model_dump(mode="json", by_alias=True, exclude_none=True)
    assert spec["evaluation"]["gates"] == GATES


def test_a_gate_that_is_null_stays_open(namespace: str) -> None:
    body = dporun("open")
    body["spec"]["evaluation"] = {"gates": {"accuracy": None}}
    body["spec"]["training"] = {"epochs": None, "earlyStoppingPatience": None}
    spec = created(body, namespace)["spec"]
    assert spec["evaluation"]["gates"] == GATES | {"accuracy": None}
    assert spec["training"]["epochs"] == 2
    assert "earlyStoppingPatience" not in spec["training"]


def test_the_tables_name_every_field() -> None:
    assert set(IMMUTABLE) == set(DPORunSpec.immutable())
    sections = {path.partition(".")[0] for path in [*IMMUTABLE, *MUTABLE]}
    assert sections == {str(field.alias) for field in DPORunSpec.model_fields.values()}


@pytest.mark.parametrize("path", IMMUTABLE)
def test_an_immutable_field_cannot_change(path: str, stored: str, namespace: str) -> None:
    with pytest.raises(KubectlError, match=rf"spec\.{path}: Forbidden: immutable; create a new DPORun to change it"):
        patch(stored, namespace, nested(path, IMMUTABLE[path]))


@pytest.mark.parametrize("path", MUTABLE)
def test_a_mutable_field_can_change(path: str, stored: str, namespace: str) -> None:
    patch(stored, namespace, nested(path, MUTABLE[path]))


@pytest.mark.parametrize("section", ["archive", "image"])
def test_what_is_there_cannot_be_taken_away(section: str, stored: str, namespace: str) -> None:
    with pytest.raises(KubectlError, match=f"{section}.*Forbidden: immutable"):
        patch(stored, namespace, {section: None})


def test_status_is_not_the_users_to_write(namespace: str) -> None:
    body = dporun("status") | {"status": {"phase": "Succeeded"}}
    assert "status" not in created(body, namespace)


def test_the_columns(stored: str, namespace: str) -> None:
    status = {
        "phase": "Training",
        "message": "Step 340 of 1200.",
        "summary": {"progress": "340/1200", "eta": "41m", "evalLoss": "0.412", "accuracy": "0.71", "margin": "0.83",
                    "best": "checkpoint-300", "model": "Qwen2.5-0.5B-Instruct", "gpus": "1", "forgetting": "0.01"},
        "health": {"state": "OnTrack"},
        "verdict": {"state": "Good", "passed": True},
        "archive": {"state": "Pending"},
    }  # fmt: skip
    text = json.dumps({"status": status})
    kubectl(
        "patch", "dporun", stored, "--namespace", namespace, "--subresource=status", "--type=merge", "--patch", text
    )
    header, row = kubectl("get", "dpo", "--namespace", namespace).splitlines()
    assert header.split() == ["NAME", "PHASE", "PROGRESS", "ETA", "EVAL-LOSS", "ACC", "MARGIN", "HEALTH", "AGE"]
    assert row.split()[:8] == [stored, "Training", "340/1200", "41m", "0.412", "0.71", "0.83", "OnTrack"]
    header, row = kubectl("get", "ml", "--namespace", namespace, "--output", "wide").splitlines()
    assert header.split()[9:] == ["BEST", "MODEL", "GPUS", "FORGETTING", "VERDICT", "ARCHIVE", "MESSAGE"]
    assert row.endswith("Step 340 of 1200.")


def test_explain_reads_like_documentation() -> None:
    text = " ".join(kubectl("explain", "dporun.spec.training.learningRate").split())
    assert "Peak learning rate of AdamW. Default: 5e-6. Example: 5e-5." in text
