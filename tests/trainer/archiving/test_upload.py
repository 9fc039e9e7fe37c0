"""Checkpoints to the archive while a run trains, and back: to a real S3 server and to a folder."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from dporun_api.run_config import RunConfig
from dporun_api.v1alpha1.reasons import Reason
from dporun_testing.run_folders import a_checkpoint, a_run, results
from dporun_testing.s3_proxy import Proxy
from dporun_testing.s3_server import S3Server
from dporun_trainer.archiving.archive import archive, open_archive
from dporun_trainer.archiving.upload import fetch_checkpoints, newer_checkpoints, upload_checkpoints
from dporun_trainer.archiving.uploaded import read_index
from dporun_trainer.errors import RunError
from dporun_trainer.run_folder import RunFolder, checkpoints
from dporun_trainer.run_folder.checkpoints import Checkpoint, Checkpoints
from dporun_trainer.run_folder.manifest import Manifest
from dporun_trainer.stores.folder import FolderStore
from dporun_trainer.stores.s3 import S3Store
from dporun_trainer.stores.transfer import Store


@pytest.fixture(params=["s3", "folder"])
def config(request: pytest.FixtureRequest, tmp_path: Path) -> RunConfig:
    if request.param == "folder":
        return a_run(str(tmp_path / "archive"))
    return a_run(f"s3://{request.getfixturevalue('bucket')}/runs")


def opened(config: RunConfig) -> Store:
    assert config.archive
    return open_archive(config.archive, config.run)


def upload(config: RunConfig, directory: Path) -> list[int]:
    """Upload, and return the steps that the archive has then."""
    index = upload_checkpoints(opened(config), RunFolder(directory), config.run)
    return [one.step for one in index.checkpoints]


def fetch(config: RunConfig, directory: Path) -> list[int]:
    """Fetch, and return the steps that the volume has then."""
    store, folder = opened(config), RunFolder(directory)
    directory.mkdir(parents=True, exist_ok=True)
    fetch_checkpoints(store, folder, newer_checkpoints(store, folder, config.run))
    return [one.step for one in folder.checkpoints.complete()]


def stored(config: RunConfig) -> set[str]:
    return {file.name for file in opened(config).files()}


def content(directory: Path) -> dict[str, bytes]:
    return {p.relative_to(directory).as_posix(): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


def of_checkpoint(step: int) -> set[str]:
    return {f"checkpoint-{step}/{name}" for name in ("adapter_model.safetensors", "optimizer.pt", "COMPLETE")}


def test_the_archive_follows_the_volume(config: RunConfig, tmp_path: Path) -> None:
    """It has what the volume keeps, and nothing else; an empty volume gets all of that back, byte by byte."""
    volume = tmp_path / "volume"
    a_checkpoint(volume, 10, 0.5)
    assert upload(config, volume) == [10]
    a_checkpoint(volume, 20, 0.4)
    a_checkpoint(volume, 30, 0.6)
    assert upload(config, volume) == [20, 30]
    assert stored(config) == {"checkpoints.json"} | of_checkpoint(20) | of_checkpoint(30)
    RunFolder(volume).checkpoints.prune(running=True)
    assert fetch(config, tmp_path / "new") == [20, 30]
    assert content(tmp_path / "new") == content(volume)


def test_what_is_there_is_not_sent_again(config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a_checkpoint(tmp_path, 10, None)
    upload(config, tmp_path)
    newest = RunFolder(tmp_path).checkpoints.newest()
    assert newest
    sent: list[str] = []
    for kind in (FolderStore, S3Store):
        record(monkeypatch, kind, sent)
    upload(config, tmp_path)
    assert sent == []
    checkpoints.update_marker(newest, eval_loss=0.3)
    upload(config, tmp_path)
    assert sent == ["checkpoint-10/COMPLETE"]
    entry = read_index(opened(config), config.run).newest
    assert entry is not None
    assert entry.eval_loss == 0.3


def record(monkeypatch: pytest.MonkeyPatch, kind: type, sent: list[str]) -> None:
    original = kind.upload

    def upload_recorded(self: Any, name: str, *arguments: Any) -> None:
        sent.append(name)
        original(self, name, *arguments)

    monkeypatch.setattr(kind, "upload", upload_recorded)


def test_a_volume_that_is_ahead_is_left_alone(config: RunConfig, tmp_path: Path) -> None:
    a_checkpoint(tmp_path / "one", 10, 0.5)
    upload(config, tmp_path / "one")
    a_checkpoint(tmp_path / "two", 20, 0.6)
    assert fetch(config, tmp_path / "two") == [20]


def test_a_newer_checkpoint_stays_until_it_is_reached(config: RunConfig, tmp_path: Path) -> None:
    """A volume that was set back, or emptied while the store did not answer, does not cost the last checkpoint."""
    a_checkpoint(tmp_path / "one", 40, 0.5)
    upload(config, tmp_path / "one")
    a_checkpoint(tmp_path / "two", 10, 0.7)
    assert upload(config, tmp_path / "two") == [10, 40]
    a_checkpoint(tmp_path / "two", 50, 0.6)
    assert upload(config, tmp_path / "two") == [50]


def test_a_torn_checkpoint_there_counts_only_once_it_is_named(config: RunConfig, tmp_path: Path) -> None:
    """The process was killed while it uploaded: what it sent is none, and goes with the next one."""
    a_checkpoint(tmp_path / "one", 10, 0.5)
    upload(config, tmp_path / "one")
    opened(config).replace("checkpoint-20/optimizer.pt", b"half")
    assert fetch(config, tmp_path / "new") == [10]
    a_checkpoint(tmp_path / "one", 30, 0.4)
    assert upload(config, tmp_path / "one") == [30]
    assert stored(config) == {"checkpoints.json"} | of_checkpoint(30)


def test_a_damaged_checkpoint_is_not_fetched(config: RunConfig, tmp_path: Path) -> None:
    a_checkpoint(tmp_path / "one", 10, 0.4)
    a_checkpoint(tmp_path / "one", 20, 0.5)
    upload(config, tmp_path / "one")
    opened(config).replace("checkpoint-20/optimizer.pt", b"optimizes")
    assert fetch(config, tmp_path / "new") == [10]
    assert not list((tmp_path / "new").glob(".*")), "nothing half is left"


def test_pruned_while_it_is_sent(config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training goes on and deletes what is being uploaded; the upload ends well all the same."""
    a_checkpoint(tmp_path, 10, 0.5)
    for kind in (FolderStore, S3Store):

        def after_pruning(self: Any, *arguments: Any, holds: Any = kind.holds) -> bool:
            shutil.rmtree(tmp_path / "checkpoint-10", ignore_errors=True)
            return bool(holds(self, *arguments))

        monkeypatch.setattr(kind, "holds", after_pruning)
    assert upload(config, tmp_path) == [10]
    assert not (tmp_path / "checkpoint-10").exists()
    assert fetch(config, tmp_path / "new") == [10]


def test_validated_while_it_is_sent(config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the index says of a checkpoint is what its files say."""
    a_checkpoint(tmp_path, 10, None)
    held = Checkpoints.held

    def validated(self: Checkpoints, checkpoint: Checkpoint) -> Any:
        checkpoints.update_marker(checkpoint, eval_loss=0.3)
        return held(self, checkpoint)

    monkeypatch.setattr(Checkpoints, "held", validated)
    upload(config, tmp_path)
    entry = read_index(opened(config), config.run).newest
    assert entry is not None
    assert entry.eval_loss == 0.3


def test_damage_that_the_store_does_not_see_is_repaired(bucket: str, proxy: Proxy, tmp_path: Path) -> None:
    """It knows no checksums, so what it got is read before it is named."""
    config = a_run(f"s3://{bucket}/runs")
    a_checkpoint(tmp_path / "one", 10, 0.5)
    proxy.break_with(
        {"drop": ["x-amz-checksum-sha256", "x-amz-checksum-mode", "x-amz-sdk-checksum-algorithm"]},
        {"of": "PutObject", "path": "optimizer.pt", "times": 1, "flip": {"request": 5}},
    )
    assert upload(config, tmp_path / "one") == [10]
    proxy.assert_met()
    assert fetch(config, tmp_path / "new") == [10]


def test_another_runs_folder_is_left_alone(config: RunConfig, tmp_path: Path) -> None:
    """The first 8 characters of the UIDs are the same, and so are the folders."""
    uid = "1a2b3c4d-1111-4111-8111-111111111111"
    other = config.model_copy(update={"run": config.run.model_copy(update={"uid": uid})})
    a_checkpoint(tmp_path / "one", 10, 0.5)
    upload(config, tmp_path / "one")
    for act in (upload, fetch):
        with pytest.raises(RunError, match="checkpoints of another run"):
            act(other, tmp_path / "one")
    archive(config, RunFolder(results(tmp_path / "two")))
    with pytest.raises(RunError, match=r"another run's manifest\.json"):
        upload(other, tmp_path / "one")


@pytest.mark.parametrize("include", [["best"], ["best", "checkpoints"]])
def test_the_archive_keeps_no_leftovers(s3: S3Server, bucket: str, tmp_path: Path, include: list[str]) -> None:
    config = a_run(f"s3://{bucket}/runs", include=include)
    directory = results(tmp_path / "run")
    upload(config, directory)
    archive(config, RunFolder(directory))
    data = s3.client().get_object(Bucket=bucket, Key="runs/tone-1a2b3c4d/manifest.json")["Body"].read()
    assert stored(config) == {"manifest.json", *(file.path for file in Manifest.model_validate_json(data).files)}
    assert ("checkpoint-30/COMPLETE" in stored(config)) is ("checkpoints" in include)


def test_a_run_that_is_not_archived_leaves_nothing(tmp_path: Path) -> None:
    config = a_run(str(tmp_path / "archive"), when="Passed")
    directory = results(tmp_path / "run")
    upload(config, directory)
    assert archive(config, RunFolder(directory)).archive is None
    assert stored(config) == set()


def test_an_empty_volume_archives_what_was_uploaded(config: RunConfig, tmp_path: Path) -> None:
    """The volume was lost after the last upload: the best checkpoint makes up the archive."""
    directory = results(tmp_path / "run")
    upload(config, directory)
    empty = tmp_path / "empty"
    empty.mkdir()
    result = archive(config, RunFolder(empty)).archive
    assert result
    assert result.adapter
    assert stored(config) == {"manifest.json"} | of_checkpoint(20)


def test_an_archive_without_an_adapter_deletes_nothing(tmp_path: Path) -> None:
    config = a_run(str(tmp_path / "archive"), include=["evaluation"])
    directory = results(tmp_path / "run")
    upload(config, directory)
    archive(config, RunFolder(directory))
    assert of_checkpoint(20) <= stored(config)


def test_keys_that_may_not_delete_are_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: FolderStore, name: str) -> None:
        raise RunError(Reason.ARCHIVE_FAILED, f"cannot delete {name}: access denied")

    config = a_run(str(tmp_path / "archive"))
    directory = results(tmp_path / "run")
    monkeypatch.setattr(FolderStore, "delete", refuse)
    a_checkpoint(directory, 50, 0.1)
    assert upload(config, directory) == [50]
    result = archive(config, RunFolder(directory)).archive
    assert result
    assert result.adapter
