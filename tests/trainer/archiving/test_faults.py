"""The archive on a bad network, and in stores that lack what Amazon's has: readable cases, before a real S3 server."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from dporun_api.files import sha256
from dporun_api.pod import ExitCode
from dporun_testing.run_folders import a_run, results
from dporun_testing.s3_proxy import Proxy
from dporun_testing.s3_server import S3Server
from dporun_trainer.archiving.archive import archive
from dporun_trainer.errors import RunError
from dporun_trainer.run_folder import RunFolder
from dporun_trainer.run_folder.manifest import Manifest
from dporun_trainer.stores import s3_client, transfer

PART = 5 * 2**20  # the smallest that S3 allows
CASES = yaml.safe_load((Path(__file__).parent / "cases" / "faults.yaml").read_text())


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A run's directory with one file of three parts."""
    directory = results(tmp_path / "run")
    (directory / "merged" / "model.safetensors").write_bytes(b"0123456789abcdef" * (2 * PART // 16) + b"the end")
    return directory


def stored(s3: S3Server, bucket: str) -> dict[str, bytes]:
    """All objects of a bucket, by their names in the run's folder."""
    client = s3.client()
    names = [entry["Key"] for entry in client.list_objects_v2(Bucket=bucket).get("Contents", [])]
    return {
        name.removeprefix("runs/tone-1a2b3c4d/"): client.get_object(Bucket=bucket, Key=name)["Body"].read()
        for name in names
    }


def assert_complete(s3: S3Server, bucket: str, directory: Path) -> None:
    objects = stored(s3, bucket)
    manifest = Manifest.model_validate_json(objects.pop("manifest.json"))
    assert {file.path for file in manifest.files} == set(objects)
    assert {"final/adapter_model.safetensors", "merged/model.safetensors"} <= set(objects)
    for file in manifest.files:
        assert objects[file.path] == (directory / file.path).read_bytes()
        assert file.sha256 == sha256(directory / file.path)
    assert not s3.client().list_multipart_uploads(Bucket=bucket).get("Uploads")


@pytest.mark.parametrize("case", CASES, ids=[case["fault"] for case in CASES])
def test_fault(
    s3: S3Server, proxy: Proxy, bucket: str, directory: Path, monkeypatch: pytest.MonkeyPatch, case: dict[str, Any]
) -> None:
    monkeypatch.setattr(transfer, "PART_BYTES", PART)
    config, folder = a_run(f"s3://{bucket}/runs", include=["best", "merged"]), RunFolder(directory)
    before = sorted(path.name for path in directory.glob("checkpoint-*"))
    if "before" in case:
        proxy.break_with(*case["before"])
        with pytest.raises(RunError):
            archive(config, folder)
    proxy.break_with(*case["break"])
    if case["archive"] == "fails":
        with monkeypatch.context() as patch:
            if any("stall" in fault for fault in case["break"]):
                patch.setattr(s3_client, "READ_SECONDS", 1)
            with pytest.raises(RunError, match=case["says"]) as raised:
                archive(config, folder)
        assert raised.value.exit_code is ExitCode.ARCHIVE_FAILED
        assert case.get("hint", "") in str(raised.value.hint)
        assert sorted(path.name for path in directory.glob("checkpoint-*")) == before
        assert "manifest.json" not in stored(s3, bucket)
        assert len(s3.client().list_multipart_uploads(Bucket=bucket).get("Uploads", [])) <= 1
        proxy.assert_met()
        proxy.break_with()
        archive(config, folder)
        made = {operation: proxy.requests.count(operation) for operation in case.get("again", {})}
        assert made == case.get("again", {})
    else:
        archive(config, folder)
        proxy.assert_met()
    assert_complete(s3, bucket, directory)
