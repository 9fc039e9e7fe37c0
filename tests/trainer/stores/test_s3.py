"""S3 as a store, on a real server; and what its errors say."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from dporun_api.v1alpha1.reasons import Reason
from dporun_testing.s3_proxy import Proxy
from dporun_testing.s3_server import S3Server
from dporun_trainer.errors import RunError
from dporun_trainer.stores import s3_client
from dporun_trainer.stores.s3 import S3Store
from dporun_trainer.stores.sources import DATASET, Credentials
from dporun_trainer.stores.transfer import Content, Meter, StoredFile

PART = 5 * 2**20  # the smallest that S3 allows
CASES = Path(__file__).parent / "cases"
DOWNLOADS = yaml.safe_load((CASES / "downloads.yaml").read_text())


@pytest.fixture
def store(bucket: str, archiver: Credentials) -> S3Store:
    return S3Store(bucket, "some/folder", archiver)


def nothing(_: int) -> None:
    pass


def a_file(folder: Path, length: int) -> Path:
    path = folder / "file"
    path.write_bytes(bytes(i % 251 for i in range(1000)) * (length // 1000) + b"x" * (length % 1000))
    return path


@pytest.mark.parametrize("length", [0, 7, PART, PART + 1, 2 * PART + 5])
@pytest.mark.parametrize("name", ["a.bin", "sub/ünï çødé 日本 #?&+.bin"])
def test_there_and_back(store: S3Store, tmp_path: Path, length: int, name: str) -> None:
    path = a_file(tmp_path, length)
    content = Content.of(path, PART)
    assert not store.holds(name, content)
    sent: list[int] = []
    store.upload(name, path, content, sent.append)
    assert sum(sent) == length
    assert len(content.parts) == max(-(-length // PART), 1)
    assert store.holds(name, content)
    assert list(store.files()) == [StoredFile(name, length)]
    assert store.download(name, tmp_path / "back" / "file", nothing) == content.sha256
    assert (tmp_path / "back" / "file").read_bytes() == path.read_bytes()
    assert sorted(file.name for file in (tmp_path / "back").iterdir()) == ["file"]


def test_other_content_of_the_same_length_is_not_held(store: S3Store, tmp_path: Path) -> None:
    path = a_file(tmp_path, 2 * PART)
    content = Content.of(path, PART)
    changed = tmp_path / "changed"
    changed.write_bytes(path.read_bytes()[:-1] + b"!")
    store.upload("file", changed, Content.of(changed, PART), nothing)
    assert not store.holds("file", content)


@pytest.mark.parametrize("same", [True, False])
def test_object_without_checksum_is_read(s3: S3Server, bucket: str, store: S3Store, tmp_path: Path, same: bool) -> None:
    path = a_file(tmp_path, 5000)
    body = path.read_bytes() if same else b"y" * 5000
    bare = s3.client(request_checksum_calculation="when_required")
    bare.put_object(Bucket=bucket, Key="some/folder/file", Body=body)
    assert store.holds("file", Content.of(path)) is same


def test_server_refuses_what_was_damaged_on_the_way(store: S3Store, tmp_path: Path) -> None:
    path = a_file(tmp_path, 5000)
    content = Content.of(path)
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(RunError, match="did not match"):
        store.upload("file", path, content, nothing)
    assert store.stat("file") is None


def test_failed_multipart_upload_leaves_nothing(s3: S3Server, bucket: str, store: S3Store, tmp_path: Path) -> None:
    path = a_file(tmp_path, 2 * PART)
    content = Content.of(path, PART)
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(RunError):
        store.upload("file", path, content, nothing)
    assert not s3.client().list_multipart_uploads(Bucket=bucket).get("Uploads")
    assert store.stat("file") is None


def test_clean_aborts_only_our_uploads(s3: S3Server, bucket: str, store: S3Store) -> None:
    for key in ("some/folder/x", "some/folder-2/y"):
        s3.client().create_multipart_upload(Bucket=bucket, Key=key)
    store.clean()
    left = s3.client().list_multipart_uploads(Bucket=bucket)["Uploads"]
    assert [upload["Key"] for upload in left] == ["some/folder-2/y"]


def test_create_happens_once(store: S3Store) -> None:
    assert store.create("manifest.json", b"one")
    assert not store.create("manifest.json", b"two")
    assert store.read("manifest.json") == b"one"
    store.replace("manifest.json", b"three")
    assert store.read("manifest.json") == b"three"
    assert store.read("nothing") is None


def test_rotted_object_is_read_as_it_is(s3: S3Server, bucket: str, store: S3Store, tmp_path: Path) -> None:
    """A manifest that changed on the server's disk can then be told from the right one; a file of a run is refused."""
    store.replace("manifest.json", b"one")
    (s3.folder / bucket / "some" / "folder" / "manifest.json").write_bytes(b"two")
    assert store.read("manifest.json") == b"two"
    with pytest.raises(RunError, match=r"manifest\.json is damaged: its SHA-256 is"):
        store.download("manifest.json", tmp_path / "back", nothing)


def test_race_for_the_manifest_has_one_winner(store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look and the PUT another archiver was faster: only the condition of the PUT can tell."""
    store.create("manifest.json", b"theirs")
    monkeypatch.setattr(store, "stat", lambda _: None)
    assert not store.create("manifest.json", b"ours")
    assert store.read("manifest.json") == b"theirs"


def test_interrupted_download_goes_on(store: S3Store, tmp_path: Path) -> None:
    path = a_file(tmp_path, PART)
    content = Content.of(path)
    store.upload("file", path, content, nothing)

    class StopError(Exception):
        pass

    def interrupt(count: int) -> None:
        if count:
            raise StopError

    target = tmp_path / "back" / "file"
    with pytest.raises(StopError):
        store.download("file", target, interrupt)
    assert not target.exists()
    counts: list[int] = []
    assert store.download("file", target, counts.append) == content.sha256
    assert counts[0] > 0, "what was there is counted, not fetched"
    assert target.read_bytes() == path.read_bytes()


def test_download_of_a_changed_object_starts_over(store: S3Store, tmp_path: Path) -> None:
    (tmp_path / "back").mkdir()
    (tmp_path / "back" / "file.part").write_bytes(b"old")
    (tmp_path / "back" / "file.part.etag").write_text('"old"')
    path = a_file(tmp_path, 1000)
    store.upload("file", path, Content.of(path), nothing)
    store.download("file", tmp_path / "back" / "file", nothing)
    assert (tmp_path / "back" / "file").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("case", DOWNLOADS, ids=[case["fault"] for case in DOWNLOADS])
def test_download_fault(
    s3: S3Server, proxy: Proxy, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: dict[str, Any]
) -> None:
    path, target = a_file(tmp_path, 3 * 2**20), tmp_path / "back" / "file"
    put_as(case["object"], s3, bucket, path)
    proxy.break_with(*case["break"])
    if any("stall" in fault for fault in case["break"]):
        monkeypatch.setattr(s3_client, "READ_SECONDS", 1)
    store = S3Store(bucket, "some/folder", DATASET)
    if case["download"] == "fails":
        with pytest.raises(RunError, match=case["says"]) as raised:
            store.download("file", target, nothing)
        assert raised.value.reason == case["reason"]
        assert not target.exists()
        proxy.assert_met()
        proxy.break_with()
    store.download("file", target, nothing)
    proxy.assert_met()
    assert proxy.requests.count("GetObject") == case.get("asks", proxy.requests.count("GetObject"))
    assert target.read_bytes() == path.read_bytes()
    assert [file.name for file in target.parent.iterdir()] == ["file"]


def put_as(kind: str, s3: S3Server, bucket: str, path: Path) -> None:
    """Store a file so that the server knows this kind of checksum of it."""
    at = {"Bucket": bucket, "Key": "some/folder/file"}
    client = s3.client(request_checksum_calculation="when_required")
    if kind == "parts":
        upload = at | {"UploadId": client.create_multipart_upload(**at, ChecksumAlgorithm="SHA256")["UploadId"]}
        part = client.upload_part(**upload, PartNumber=1, Body=path.read_bytes(), ChecksumAlgorithm="SHA256")
        parts = [{"PartNumber": 1, "ETag": part["ETag"], "ChecksumSHA256": part["ChecksumSHA256"]}]
        client.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
    else:
        algorithm = {} if kind == "bare" else {"ChecksumAlgorithm": kind.upper()}
        client.put_object(**at, Body=path.read_bytes(), **algorithm)


@pytest.mark.parametrize(
    ("credentials", "change", "reason", "words", "hint"),
    [
        (
            DATASET, {"AWS_SECRET_ACCESS_KEY": "wrong"}, Reason.DATASET_INVALID,
            "access denied by http", "AWS_SECRET_ACCESS_KEY in the Secret of spec.dataset.secretRef",
        ),
        (
            DATASET, {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, Reason.DATASET_INVALID,
            "no credentials", "Name a Secret with AWS_ACCESS_KEY_ID",
        ),
    ],
)  # fmt: skip
def test_errors_say_what_to_check(
    s3: S3Server,
    bucket: str,
    monkeypatch: pytest.MonkeyPatch,
    credentials: Credentials,
    change: dict[str, str],
    reason: Reason,
    words: str,
    hint: str,
) -> None:
    for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(key)  # boto3's own chain must not find them either
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    environment = {**s3.environment, **change}
    store = S3Store(bucket, "some", dataclasses.replace(credentials, environment=environment))
    with pytest.raises(RunError) as raised:
        store.read("file")
    assert raised.value.reason is reason
    assert f"s3://{bucket}/some/file" in raised.value.message
    assert words in raised.value.message
    assert hint in str(raised.value.hint)
    assert "test-secret" not in f"{raised.value.message}{raised.value.hint}"


def test_each_secret_has_its_own_keys(s3: S3Server, bucket: str) -> None:
    """A model and a data set of different buckets, with different Secrets, in one pod."""
    environment = {f"DATASET_{key}": value for key, value in s3.environment.items()}
    environment |= {"AWS_ACCESS_KEY_ID": "of-another", "AWS_SECRET_ACCESS_KEY": "x", "AWS_SESSION_TOKEN": "y"}
    credentials = dataclasses.replace(DATASET, environment=environment)
    assert S3Store(bucket, "", credentials).read("nothing") is None


def test_meter_tells_files_bytes_and_speed(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[str] = []
    caplog.set_level("INFO")
    meter = Meter("archived", 2, 3 * 2**20, seen.append)
    tell: Callable[[int], None] = meter.add
    tell(2**20)
    meter.file()
    tell(2 * 2**20)
    meter.file()
    assert seen[-1].startswith("archived 2/2 files, 3.0 MiB of 3.0 MiB (100 %), ")
    assert seen[-1].endswith("MB/s")
    assert seen[-1] in caplog.text
