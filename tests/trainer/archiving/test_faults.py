"""The archive on a bad network, and in stores that lack what Amazon's has: readable cases, before a real S3 server."""

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from dporun_api.files import sha256
from dporun_api.pod import ExitCode
from dporun_api.results import ArchiveResult
from dporun_api.run_config import RunConfig
from dporun_testing.processes import running
from dporun_testing.run_folders import a_run, results
from dporun_testing.s3_proxy import Proxy
from dporun_testing.s3_server import S3Server
from dporun_trainer.archiving.archive import archive
from dporun_trainer.errors import RunError
from dporun_trainer.run_folder import RunFolder
from dporun_trainer.run_folder.manifest import Manifest
from dporun_trainer.stores import s3_client, transfer
from dporun_trainer.stores.transfer import Content

PART = 5 * 2**20  # the smallest that S3 allows
CASES = yaml.safe_load((Path(__file__).parent / "cases" / "faults.yaml").read_text())


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "PART_BYTES", PART)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A run's directory with one file of three parts."""
    directory = results(tmp_path / "run")
    (directory / "merged" / "model.safetensors").write_bytes(b"0123456789abcdef" * (2 * PART // 16) + b"the end" * 1000)
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
    assert "final/adapter_model.safetensors" in objects
    for file in manifest.files:
        assert objects[file.path] == (directory / file.path).read_bytes()
        assert file.sha256 == sha256(directory / file.path)
    assert not s3.client().list_multipart_uploads(Bucket=bucket).get("Uploads")


@pytest.mark.parametrize("case", CASES, ids=[case["fault"] for case in CASES])
def test_fault(
    s3: S3Server,
    proxy: Proxy,
    bucket: str,
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    case: dict[str, Any],
) -> None:
    config, folder = a_run(f"s3://{bucket}/runs", include=["best", "merged"]), RunFolder(directory)
    if "before" in case:
        proxy.break_with(*case["before"])
        with pytest.raises(RunError):
            archive(config, folder)
    first = archive(config, folder).archive if case.get("archived") else None
    before = sorted(path.name for path in directory.glob("checkpoint-*"))
    objects = set(stored(s3, bucket))

    def attempt() -> ArchiveResult | None:
        return archive(config, folder, manifest_sha256=first and first.manifest_sha256).archive

    proxy.break_with(*case["break"])
    if case["archive"] == "fails":
        with monkeypatch.context() as patch:
            if any("stall" in fault for fault in case["break"]):
                patch.setattr(s3_client, "READ_SECONDS", 1)
            with pytest.raises(RunError, match=case["says"]) as raised:
                attempt()
        assert raised.value.exit_code is ExitCode.ARCHIVE_FAILED
        assert case.get("hint", "") in str(raised.value.hint)
        assert sorted(path.name for path in directory.glob("checkpoint-*")) == before
        assert ("manifest.json" in stored(s3, bucket)) is ("manifest.json" in objects)
        assert len(s3.client().list_multipart_uploads(Bucket=bucket).get("Uploads", [])) <= 1
        proxy.assert_met()
        proxy.break_with()
        attempt()
        made = {operation: proxy.requests.count(operation) for operation in case.get("again", {})}
        assert made == case.get("again", {})
    else:
        result = attempt()
        assert result
        assert (result.mended or 0) == case.get("mended", 0)
        proxy.assert_met()
    assert_complete(s3, bucket, directory)


def lose_the_third_part(proxy: Proxy, config: RunConfig, folder: RunFolder) -> None:
    """Have a try that leaves an upload with two of three parts."""
    proxy.break_with({"of": "UploadPart", "path": "partNumber=3", "answer": [503, "SlowDown"]})
    with pytest.raises(RunError):
        archive(config, folder)
    proxy.break_with()


def test_what_may_not_be_aborted_is_begun_again_once(proxy: Proxy, bucket: str, directory: Path) -> None:
    """It is still listed then, and would be continued, refused and begun again without end."""
    config, folder = a_run(f"s3://{bucket}/runs", include=["best", "merged"]), RunFolder(directory)
    lose_the_third_part(proxy, config, folder)
    proxy.break_with(
        {"of": "CompleteMultipartUpload", "answer": [400, "InvalidPart"]},
        {"of": "AbortMultipartUpload", "answer": [403, "AccessDenied"]},
    )
    with pytest.raises(RunError, match="InvalidPart"):
        archive(config, folder)
    assert proxy.requests.count("CompleteMultipartUpload") == 2


@pytest.mark.slow(5)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_stopped_in_the_middle_of_a_part(
    s3: S3Server, proxy: Proxy, bucket: str, directory: Path, tmp_path: Path, number: signal.Signals
) -> None:
    config = a_run(f"s3://{bucket}/runs", include=["best", "merged"])
    directory = directory.rename(tmp_path / config.run.directory)
    (tmp_path / "run.json").write_text(config.to_json())
    program = f"""if True:
        import sys
        from dporun_trainer.__main__ import main
        from dporun_trainer.stores import transfer
        transfer.PART_BYTES = {PART}
        sys.exit(main(["archive", "--config", "run.json", "--root", "."]))"""
    stall = {"of": "UploadPart", "stall": {"request": 1000}}
    proxy.break_with({"path": "partNumber=2", **stall}, {"path": "partNumber=3", **stall})
    with running([sys.executable, "-c", program], cwd=tmp_path, stderr=subprocess.DEVNULL) as process:
        await_parts(s3, bucket, 1, process)
        await_met(proxy)
        process.send_signal(number)
        process.wait(timeout=50)
    assert process.returncode == (-signal.SIGKILL if number is signal.SIGKILL else ExitCode.PREEMPTED)
    assert proxy.requests.count("UploadPart") == 3, "no stalled part is waited for and tried again"
    assert "manifest.json" not in stored(s3, bucket)
    assert len(list(directory.glob("checkpoint-*"))) == 4

    proxy.break_with()
    archive(config, RunFolder(directory))
    sent = [operation for operation in proxy.requests if operation in {"CreateMultipartUpload", "UploadPart"}]
    assert sent == ["UploadPart", "UploadPart"], "the upload goes on, with the parts that were lost"
    assert_complete(s3, bucket, directory)


def await_parts(s3: S3Server, bucket: str, count: int, process: "subprocess.Popen[bytes]") -> None:
    """Wait until the unfinished upload has so many parts."""
    client, deadline, parts = s3.client(), time.monotonic() + 120, 0
    while parts < count:
        assert process.poll() is None, "it ended before it could be stopped"
        assert time.monotonic() < deadline
        for upload in client.list_multipart_uploads(Bucket=bucket).get("Uploads", []):
            at = {"Bucket": bucket, "Key": upload["Key"], "UploadId": upload["UploadId"]}
            parts = len(client.list_parts(**at).get("Parts", []))
        time.sleep(0.02)


def await_met(proxy: Proxy) -> None:
    """Wait until every fault has struck."""
    deadline = time.monotonic() + 60
    while len(proxy.hits) < len(proxy.faults):
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("content", "begun", "sent"),
    [
        pytest.param(b"0123456789abcdef" * (PART // 16) + b"x" * (PART + 9), 0, 2, id="partly"),
        pytest.param(b"x" * (2 * PART), 1, 2, id="wholly"),
        pytest.param(b"small", 0, 0, id="now small"),
        pytest.param(None, 0, 0, id="gone"),
    ],
)
def test_file_that_changed_meanwhile(
    s3: S3Server, proxy: Proxy, bucket: str, directory: Path, content: bytes, begun: int, sent: int
) -> None:
    config, folder = a_run(f"s3://{bucket}/runs", include=["best", "merged"]), RunFolder(directory)
    lose_the_third_part(proxy, config, folder)
    if content is None:
        (directory / "merged" / "model.safetensors").unlink()
    else:
        (directory / "merged" / "model.safetensors").write_bytes(content)
    archive(config, folder)
    assert (proxy.requests.count("CreateMultipartUpload"), proxy.requests.count("UploadPart")) == (begun, sent)
    assert_complete(s3, bucket, directory)


def test_file_that_changes_while_it_is_sent(
    s3: S3Server, bucket: str, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its checksums are of before: the store takes the new content for damage, and nothing of it stays there."""
    config, folder = a_run(f"s3://{bucket}/runs", include=["best", "merged"]), RunFolder(directory)
    content_of = Content.of

    def change(path: Path) -> Content:
        content = content_of(path)
        if path.parent.name == "merged":
            path.write_bytes(b"!" * content.length)
        return content

    with monkeypatch.context() as patch:
        patch.setattr(Content, "of", change)
        with pytest.raises(RunError, match="did not match its checksum"):
            archive(config, folder)
    assert not s3.client().list_multipart_uploads(Bucket=bucket).get("Uploads")
    archive(config, folder)
    assert_complete(s3, bucket, directory)


@pytest.mark.parametrize("deleted", [False, True], ids=["archived", "verified at the deletion"])
def test_only_the_runs_own_leftovers_are_aborted(s3: S3Server, bucket: str, directory: Path, deleted: bool) -> None:
    config, folder = a_run(f"s3://{bucket}/runs", include=["best", "merged"]), RunFolder(directory)
    result = archive(config, folder).archive if deleted else None
    for key in (
        "tone-1a2b3c4d/merged/old",
        "tone-1a2b3c4d/merged/model.safetensors",
        "tone-1a2b3c4d-2/x",
        "other",
    ):
        s3.client().create_multipart_upload(Bucket=bucket, Key=f"runs/{key}")
    archive(config, folder, manifest_sha256=result.manifest_sha256 if result else None)
    left = s3.client().list_multipart_uploads(Bucket=bucket)["Uploads"]
    assert sorted(upload["Key"] for upload in left) == ["runs/other", "runs/tone-1a2b3c4d-2/x"]
