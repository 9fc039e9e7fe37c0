"""A manifest that is wrong never becomes a run."""

from typing import Any

import pytest

from dporun_testing.kubectl import KubectlError, apply, eventually, exists, get, kubectl
from dporun_testing.runs import Workspace

pytestmark = pytest.mark.cluster


@pytest.mark.parametrize(
    ("section", "fields", "words"),
    [
        ("training", {"learningRate": -1}, "learningRate"),
        ("training", {"learningrate": 1e-5}, "learningrate"),
        ("model", {"uri": "https://example.com/model"}, "model.uri"),
        ("distributed", {"nodes": 2}, "ReadWriteMany"),
    ],
)
def test_an_invalid_manifest_is_refused_at_apply(
    workspace: Workspace, section: str, fields: dict[str, Any], words: str
) -> None:
    with pytest.raises(KubectlError, match=words):
        apply(workspace.manifest("wrong", **{section: fields}), workspace.namespace)
    assert not exists("dporun", "wrong", workspace.namespace)


def test_bad_data_fails_before_training(workspace: Workspace, s3: Any) -> None:
    rows = '{"prompt": "Hi", "chosen": "Hello.", "rejected": ""}\n' * 3
    s3.put_object(Bucket=workspace.bucket, Key="tiny/data/bad.jsonl", Body=rows.encode())
    uri = f"s3://{workspace.bucket}/tiny/data/bad.jsonl"
    apply(workspace.manifest("bad-data", dataset={"train": uri}), workspace.namespace)

    def status() -> dict[str, Any]:
        found: dict[str, Any] = get("dporun", "bad-data", workspace.namespace).get("status", {})
        return found

    eventually(lambda: status().get("phase") == "Failed", seconds=180, what="the run fails")
    failure = status()["failure"]
    assert failure["reason"] == "DatasetInvalid"
    assert failure["exitCode"] == 65
    assert "an empty rejected (rows 1, 2, 3" in failure["message"]
    jobs = kubectl(
        "get", "jobs", "--namespace", workspace.namespace, "--selector", "dporun.io/run=bad-data", "-o", "name"
    )
    assert "train" not in jobs
    kubectl("delete", "dporun", "bad-data", "--namespace", workspace.namespace, "--timeout=120s")
