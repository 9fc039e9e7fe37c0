"""Verifying an archive against the manifest that it was made with: what differs is mended, what is lost is an error."""

import json
from pathlib import Path

import pytest

from dporun_api.files import sha256
from dporun_api.results import ArchiveResult, Outcome
from dporun_api.run_config import RunConfig
from dporun_testing.run_folders import a_run, results
from dporun_testing.s3_server import S3Server
from dporun_trainer.archiving.archive import archive
from dporun_trainer.errors import RunError
from dporun_trainer.run_folder import RunFolder

ADAPTER = "final/adapter_model.safetensors"


class Archived:
    """A run that has been archived to a folder, and what the operator has kept of that."""

    def __init__(self, folder: Path, **target: object):
        self.config: RunConfig = a_run(str(folder / "archive"), **target)
        self.volume = results(folder / "volume")
        self.first = self.result(archive(self.config, RunFolder(self.volume)))
        self.place = Path(self.first.uri)
        self.before = self.content()

    def verify(self, volume: Path | None = None) -> Outcome:
        return archive(self.config, RunFolder(volume or self.volume), manifest_sha256=self.first.manifest_sha256)

    def content(self) -> dict[str, str]:
        files = (path for path in self.place.rglob("*") if path.is_file())
        return {path.relative_to(self.place).as_posix(): sha256(path) for path in files}

    @staticmethod
    def result(outcome: Outcome) -> ArchiveResult:
        assert outcome.archive is not None
        return outcome.archive


@pytest.fixture
def run(tmp_path: Path) -> Archived:
    return Archived(tmp_path)


def test_an_archive_that_is_whole_is_left_alone(run: Archived) -> None:
    assert run.result(run.verify()) == run.first
    assert run.content() == run.before


def test_what_was_changed_or_deleted_is_stored_again_and_told(run: Archived) -> None:
    (run.place / ADAPTER).write_bytes(b"b" * 1000)
    (run.place / "outcome.json").unlink()
    outcome = run.verify()
    assert run.content() == run.before
    assert run.result(outcome).mended == 2
    assert f"changed or deleted since, and stored again: {ADAPTER}, outcome.json" in outcome.message


def test_objects_of_s3_are_stored_again_too(s3: S3Server, bucket: str, tmp_path: Path) -> None:
    config, volume = a_run(f"s3://{bucket}/runs"), RunFolder(results(tmp_path / "run"))
    first = Archived.result(archive(config, volume))
    for key in (ADAPTER, "manifest.json"):
        s3.client().put_object(Bucket=bucket, Key=f"runs/{config.run.directory}/{key}", Body=b"garbage")
    again = Archived.result(archive(config, volume, manifest_sha256=first.manifest_sha256))
    assert again == first.model_copy(update={"mended": 2})
    stored = s3.client().get_object(Bucket=bucket, Key=f"runs/{config.run.directory}/{ADAPTER}")["Body"].read()
    assert stored == (volume.path / ADAPTER).read_bytes()


def drop_a_file(manifest: Path) -> None:
    document = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**document, "files": document["files"][1:]}))


def empty(manifest: Path) -> None:
    manifest.write_text("")


@pytest.mark.parametrize("spoil", [drop_a_file, empty, Path.unlink])
def test_a_manifest_that_was_changed_is_written_again_and_told(run: Archived, spoil: object) -> None:
    assert callable(spoil)
    spoil(run.place / "manifest.json")
    outcome = run.verify()
    assert run.content() == run.before
    assert run.result(outcome) == run.first.model_copy(update={"mended": 1})
    assert "manifest.json" in outcome.message


@pytest.mark.parametrize("when", ["Finished", "Passed"])
def test_an_archive_can_be_verified_without_the_volume(tmp_path: Path, when: str) -> None:
    """That it is to be archived was decided by a verdict which went with the volume."""
    run = Archived(tmp_path)
    run.config = a_run(str(tmp_path / "archive"), when=when)
    assert run.result(run.verify(tmp_path / "empty")) == run.first


def test_a_file_that_is_nowhere_is_an_error(run: Archived, tmp_path: Path) -> None:
    (run.place / ADAPTER).write_bytes(b"b" * 1000)
    with pytest.raises(RunError, match=f"changed or deleted since it was archived, and not on the volume: {ADAPTER}"):
        run.verify(tmp_path / "empty")


def test_an_empty_archive_without_the_volume_is_an_error(run: Archived, tmp_path: Path) -> None:
    for path in run.content():
        (run.place / path).unlink()
    with pytest.raises(RunError, match="has neither a copy nor an adapter"):
        run.verify(tmp_path / "empty")
    assert run.result(run.verify()).mended == len(run.before), "with the volume it is made again"


def test_a_manifest_without_a_copy_is_made_again_of_the_volume(run: Archived) -> None:
    empty(run.place / "manifest.json")
    (run.volume / "manifest.json").unlink()
    assert run.result(run.verify()).mended == 1
    assert json.loads((run.place / "manifest.json").read_text())["files"]


def test_damage_on_the_volume_does_not_reach_the_archive(run: Archived) -> None:
    (run.volume / ADAPTER).write_bytes(b"b" * 1000)
    assert run.result(run.verify()) == run.first
    assert run.content() == run.before


def test_the_manifest_of_another_run_is_never_replaced(run: Archived) -> None:
    manifest = run.place / "manifest.json"
    document = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**document, "run": {**document["run"], "uid": "1a2b3c4d-1111"}}))
    with pytest.raises(RunError, match="contains another run's"):
        run.verify()
