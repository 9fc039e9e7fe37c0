"""Archiving runs, to a real S3 server and to a folder: complete, verified, repeatable; and nothing is lost."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dporun_api.files import sha256, write_text
from dporun_api.pod import ExitCode
from dporun_api.results import ArchiveResult, Outcome, OutcomeState, Progress, Stage, Verdict, VerdictState
from dporun_api.run_config import ArchiveContent, RunConfig
from dporun_api.v1alpha1.reasons import Reason
from dporun_testing.run_folders import ODD_NAME, a_checkpoint, a_run, results
from dporun_testing.s3_server import S3Server
from dporun_trainer.archiving.archive import archive
from dporun_trainer.errors import RunError
from dporun_trainer.progress import ProgressFile
from dporun_trainer.run_folder import RunFolder, checkpoints
from dporun_trainer.run_folder.checkpoints import Checkpoints
from dporun_trainer.run_folder.manifest import Manifest
from dporun_trainer.run_folder.parts import select
from dporun_trainer.stores.folder import FolderStore


def archived(config: RunConfig, directory: Path) -> ArchiveResult:
    result = archive(config, RunFolder(directory)).archive
    assert result is not None
    return result


def manifest_of(s3: S3Server, bucket: str, prefix: str = "runs/tone-1a2b3c4d") -> Manifest:
    data = s3.client().get_object(Bucket=bucket, Key=f"{prefix}/manifest.json")["Body"].read()
    return Manifest.model_validate_json(data)


def left(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.glob("checkpoint-*"))


def requests(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the S3 operations from now on."""
    import botocore.client

    seen: list[str] = []
    call = botocore.client.BaseClient._make_api_call

    def count(self: Any, operation: str, arguments: Any) -> Any:
        seen.append(operation)
        return call(self, operation, arguments)

    monkeypatch.setattr(botocore.client.BaseClient, "_make_api_call", count)
    return seen


def test_everything_is_there_and_as_it_was(s3: S3Server, bucket: str, tmp_path: Path) -> None:
    directory = results(tmp_path / "run")
    before = {path.relative_to(directory).as_posix(): sha256(path) for path in directory.rglob("*") if path.is_file()}
    outcome = archive(a_run(f"s3://{bucket}/runs"), RunFolder(directory))
    result = outcome.archive
    assert result
    assert result.uri == f"s3://{bucket}/runs/tone-1a2b3c4d"
    manifest = manifest_of(s3, bucket)
    assert result.manifest_sha256 == sha256(directory / "manifest.json")
    assert (result.files, result.bytes) == (len(manifest.files), sum(file.bytes for file in manifest.files))
    for file in manifest.files:
        stored = s3.client().get_object(Bucket=bucket, Key=f"runs/tone-1a2b3c4d/{file.path}")["Body"].read()
        assert stored == (directory / file.path).read_bytes()
        assert file.sha256 == before[file.path]
    assert {file.path for file in manifest.files} == {
        "evaluation/empty.json",
        "evaluation/evaluation_metrics.json",
        "final/adapter_config.json",
        "final/adapter_model.safetensors",
        "log_history.jsonl",
        "merged/model.safetensors",
        "outcome.json",
        "report.html",
        f"runs/{ODD_NAME}",
        "training_config.json",
        "training_metrics.json",
    }
    assert manifest.run.uid == "1a2b3c4d-0000-4000-8000-000000000000"
    assert manifest.best_checkpoint
    assert manifest.best_checkpoint.step == 20
    assert left(directory) == ["checkpoint-20"], "only the best checkpoint stays"
    assert "3 intermediate checkpoints deleted" in outcome.message


def test_second_time_sends_nothing(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory, config = results(tmp_path / "run"), a_run(f"s3://{bucket}/runs")
    first = archived(config, directory)
    seen = requests(monkeypatch)
    assert archived(config, directory) == first
    assert "HeadObject" in seen
    assert not {"PutObject", "CreateMultipartUpload", "DeleteObject"} & set(seen)


def test_changed_object_is_sent_again(s3: S3Server, bucket: str, tmp_path: Path) -> None:
    directory, config = results(tmp_path / "run"), a_run(f"s3://{bucket}/runs")
    first = archived(config, directory)
    key = "runs/tone-1a2b3c4d/final/adapter_model.safetensors"
    s3.client().put_object(Bucket=bucket, Key=key, Body=b"b" * 1000)
    assert archived(config, directory) == first
    assert s3.client().get_object(Bucket=bucket, Key=key)["Body"].read() == b"a" * 1000


def test_new_files_join_the_manifest_pruned_ones_stay_in_it(s3: S3Server, bucket: str, tmp_path: Path) -> None:
    config = a_run(f"s3://{bucket}/runs", include=["best", "checkpoints"])
    directory = results(tmp_path / "run")
    first = archived(config, directory)
    assert left(directory) == ["checkpoint-20"]
    (directory / "final" / "more.json").write_bytes(b"{}")
    second = archived(config, directory)
    assert second.files == first.files + 1
    paths = {file.path for file in manifest_of(s3, bucket).files}
    assert {"checkpoint-10/optimizer.pt", "checkpoint-30/optimizer.pt", "final/more.json"} <= paths
    assert not any(path.startswith("checkpoint-40/") for path in paths), "a torn checkpoint is no checkpoint"


@pytest.mark.parametrize("empty", [False, True])
def test_success_without_an_adapter_is_no_archive(tmp_path: Path, empty: bool) -> None:
    directory = results(tmp_path / "run", final=False)
    for path in directory.iterdir():
        if path.name != "outcome.json" and (empty or path.name.startswith("checkpoint-")):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(RunError, match=r"run succeeded, but .*/run has no adapter") as raised:
        archive(a_run(str(tmp_path / "archive")), RunFolder(directory))
    assert raised.value.exit_code is ExitCode.ARCHIVE_FAILED
    assert not list((tmp_path / "archive").rglob("manifest.json"))
    included = a_run(str(tmp_path / "archive"), include=["logs", "evaluation"])
    assert archived(included, directory).adapter is False, "nobody asked for it"


def test_another_volume_leaves_the_archive_as_it_is(s3: S3Server, bucket: str, tmp_path: Path) -> None:
    config = a_run(f"s3://{bucket}/runs")
    first = archived(config, results(tmp_path / "run"))
    assert first.adapter
    empty = tmp_path / "empty"
    empty.mkdir()
    assert archived(config, empty) == first
    s3.client().delete_object(Bucket=bucket, Key=f"runs/{config.run.directory}/final/adapter_model.safetensors")
    assert archived(config, empty).adapter is False


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "access denied"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "cannot be reached"),
    ],
)
def test_store_that_refuses_loses_nothing(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], words: str
) -> None:
    directory = results(tmp_path / "run")
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    with pytest.raises(RunError, match=words) as raised:
        archive(a_run(f"s3://{bucket}/runs"), RunFolder(directory))
    assert raised.value.exit_code is ExitCode.ARCHIVE_FAILED
    assert "spec.archive.secretRef" in str(raised.value.hint)
    assert left(directory) == ["checkpoint-10", "checkpoint-20", "checkpoint-30", "checkpoint-40"]


@pytest.mark.usefixtures("s3")
def test_missing_bucket(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no such bucket") as raised:
        archive(a_run("s3://not-there/runs"), RunFolder(results(tmp_path / "run")))
    assert raised.value.reason is Reason.ARCHIVE_FAILED


@pytest.fixture(params=["s3", "folder"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "folder":
        return str(tmp_path / "archive")
    return f"s3://{request.getfixturevalue('bucket')}/runs"


def foreign(uid: str | None) -> RunConfig:
    other = a_run(None).model_dump()
    other["run"]["uid"] = uid
    return RunConfig.model_validate(other)


def test_foreign_manifest_is_kept(target: str, tmp_path: Path) -> None:
    """The first 8 characters of the UIDs are the same, and so are the folders."""
    other = foreign("1a2b3c4d-1111-4111-8111-111111111111")
    first = other.model_copy(update={"archive": a_run(target).archive})
    archive(first, RunFolder(results(tmp_path / "first")))
    second = results(tmp_path / "second")
    (second / "final" / "adapter_model.safetensors").write_bytes(b"other")
    with pytest.raises(RunError, match=r"another run's manifest\.json, of the run tone") as raised:
        archive(a_run(target), RunFolder(second))
    assert raised.value.reason is Reason.ARCHIVE_IMPOSSIBLE
    assert left(second) == ["checkpoint-10", "checkpoint-20", "checkpoint-30", "checkpoint-40"]
    assert archived(first, tmp_path / "first").files, "the first run's archive is whole"


def test_local_run_does_not_overwrite_another_of_its_name(tmp_path: Path) -> None:
    config = foreign(None).model_copy(update={"archive": a_run(str(tmp_path / "archive")).archive})
    archive(config, RunFolder(results(tmp_path / "first")))
    archive(config, RunFolder(tmp_path / "first"))  # itself, again
    (tmp_path / "first" / "final" / "more.json").write_bytes(b"{}")
    archive(config, RunFolder(tmp_path / "first"))  # itself, changed
    with pytest.raises(RunError, match="another run's manifest"):
        archive(config, RunFolder(results(tmp_path / "second")))


def test_folder_gets_the_same_files(tmp_path: Path) -> None:
    config, directory = a_run(f"file://{tmp_path}/archive"), results(tmp_path / "run")
    result = archived(config, directory)
    assert result.uri == f"{tmp_path}/archive/tone-1a2b3c4d"
    manifest = Manifest.model_validate_json((Path(result.uri) / "manifest.json").read_text())
    stored = {path.relative_to(result.uri).as_posix() for path in Path(result.uri).rglob("*") if path.is_file()}
    assert stored == {"manifest.json", *(file.path for file in manifest.files)}
    assert all(sha256(Path(result.uri) / file.path) == file.sha256 for file in manifest.files)


def test_failed_run_is_archived_with_its_best_checkpoint(tmp_path: Path) -> None:
    directory = results(tmp_path / "run", state=OutcomeState.FAILED, final=False)
    result = archived(a_run(str(tmp_path / "archive")), directory)
    stored = {path.relative_to(result.uri).parts[0] for path in Path(result.uri).rglob("*")}
    assert {"checkpoint-20", "outcome.json", "runs", "training_config.json"} <= stored
    assert not {"checkpoint-10", "checkpoint-30", "checkpoint-40"} & stored
    assert left(directory) == ["checkpoint-20", "checkpoint-30"], "the newest stays, for another try"


@pytest.mark.parametrize(
    ("when", "state", "passed", "expected"),
    [
        ("Finished", OutcomeState.FAILED, None, True),
        ("Succeeded", OutcomeState.FAILED, None, False),
        ("Succeeded", OutcomeState.SUCCEEDED, False, True),
        ("Passed", OutcomeState.SUCCEEDED, False, False),
        ("Passed", OutcomeState.SUCCEEDED, None, False),
        ("Passed", OutcomeState.SUCCEEDED, True, True),
    ],
)
def test_when(tmp_path: Path, when: str, state: OutcomeState, passed: bool | None, expected: bool) -> None:
    directory = results(tmp_path / "run", state=state)
    if passed is not None:
        verdict = Verdict(state=VerdictState.FAIR, passed=passed)
        write_text(directory / "verdict.json", verdict.to_json())
    outcome = archive(a_run(str(tmp_path / "archive"), when=when), RunFolder(directory))
    assert (outcome.archive is not None) is expected
    assert outcome.state is OutcomeState.SUCCEEDED
    if not expected:
        assert f"archive.when is {when}" in outcome.message
        assert not (tmp_path / "archive").exists()


def test_symbolic_links_are_not_followed(tmp_path: Path) -> None:
    directory = results(tmp_path / "run")
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "key").write_text("key")
    (directory / "evaluation" / "link").symlink_to(tmp_path / "secret" / "key")
    (directory / "merged" / "folder").symlink_to(tmp_path / "secret")
    (directory / "checkpoint-50").symlink_to(tmp_path / "secret")
    result = archived(a_run(str(tmp_path / "archive")), directory)
    assert not any("key" in path.name or "link" in path.name for path in Path(result.uri).rglob("*"))
    assert (tmp_path / "secret" / "key").exists()


def test_damage_on_the_way_is_repaired(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    upload, damaged = FolderStore.upload, set()

    def damage_once(self: FolderStore, name: str, path: Path, content: Any, done: Any) -> None:
        upload(self, name, path, content, done)
        if name not in damaged:
            damaged.add(name)
            (Path(self.uri) / name).write_bytes(b"damaged")

    monkeypatch.setattr(FolderStore, "upload", damage_once)
    result = archived(a_run(str(tmp_path / "archive")), results(tmp_path / "run"))
    assert (Path(result.uri) / "final/adapter_model.safetensors").read_bytes() == b"a" * 1000
    assert "final/adapter_model.safetensors" in damaged


def test_damage_that_stays_fails_before_anything_is_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FolderStore, "holds", lambda *_: False)
    directory = results(tmp_path / "run")
    with pytest.raises(RunError, match="does not match what was uploaded, 3 times"):
        archive(a_run(str(tmp_path / "archive")), RunFolder(directory))
    assert left(directory) == ["checkpoint-10", "checkpoint-20", "checkpoint-30", "checkpoint-40"]
    assert not (tmp_path / "archive" / "tone-1a2b3c4d" / "manifest.json").exists()


def test_full_disk_does_not_stop_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, _: str) -> None:
        raise OSError(28, "No space left on device", str(path))

    directory = results(tmp_path / "run")
    monkeypatch.setattr("dporun_trainer.run_folder.files.write_text", full)
    assert archived(a_run(str(tmp_path / "archive")), directory).files
    assert left(directory) == ["checkpoint-20"]


def test_undeletable_checkpoints_do_not_undo_an_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    directory = results(tmp_path / "run")
    monkeypatch.setattr(checkpoints, "discard", refuse)
    outcome = archive(a_run(str(tmp_path / "archive")), RunFolder(directory))
    assert outcome.archive
    assert "could not be deleted" in outcome.message


def test_progress_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = results(tmp_path / "run")
    seen: list[Progress] = []
    update = ProgressFile.update

    def look(self: ProgressFile, **changes: Any) -> None:
        update(self, **changes)
        seen.append(self.read())

    monkeypatch.setattr(ProgressFile, "update", look)
    archive(a_run(str(tmp_path / "archive")), RunFolder(directory))
    assert {progress.stage for progress in seen[:-1]} == {Stage.ARCHIVING}
    assert any((progress.detail or "").startswith("archived 11/11 files, ") for progress in seen)
    assert seen[-1].stage is Stage.DONE


def test_prune_only_and_no_archive_upload_nothing(tmp_path: Path) -> None:
    for name, config, prune_only in (("a", a_run(str(tmp_path / "archive")), True), ("b", a_run(None), False)):
        directory = results(tmp_path / name)
        outcome = archive(config, RunFolder(directory), prune_only=prune_only)
        assert outcome.archive is None
        assert "3 intermediate checkpoints deleted, nothing uploaded" in outcome.message
        assert left(directory) == ["checkpoint-20"]
    assert not (tmp_path / "archive").exists()


@settings(max_examples=25, deadline=None)
@given(
    losses=st.dictionaries(st.integers(1, 99), st.none() | st.floats(0, 9, allow_nan=False), max_size=6),
    torn=st.sets(st.integers(1, 99), max_size=2),
    state=st.sampled_from([None, *OutcomeState]),
)
def test_pruning_never_takes_what_may_be_needed(
    tmp_path_factory: pytest.TempPathFactory,
    losses: dict[int, float | None],
    torn: set[int],
    state: OutcomeState | None,
) -> None:
    directory = tmp_path_factory.mktemp("run")
    for step, loss in losses.items():
        a_checkpoint(directory, step, loss)
    for step in torn & set(losses):
        (directory / f"checkpoint-{step}" / "optimizer.pt").unlink()
    for name in ("checkpoint-final", "checkpoint-1b", "my-checkpoint-7", "final"):
        (directory / name).mkdir()
    if state is not None:
        write_text(directory / "outcome.json", Outcome(state=state).to_json(exclude_none=True))
    before = Checkpoints(directory).complete()
    archive(a_run(None), RunFolder(directory))
    after = {checkpoint.step for checkpoint in Checkpoints(directory).complete()}
    if before:
        best = checkpoints.best(before)
        assert best
        assert best.step in after
        newest = max(checkpoint.step for checkpoint in before)
        assert after == ({best.step} if state is OutcomeState.SUCCEEDED else {best.step, newest})
    for name in ("checkpoint-final", "checkpoint-1b", "my-checkpoint-7", "final"):
        assert (directory / name).exists()


def test_selection_follows_include() -> None:
    names = ["final/a", "merged/a", "runs/e", "evaluation/e", "outcome.json", "checkpoint-1/a", "report.html", "a.log"]
    everything = tuple(ArchiveContent)
    assert select(names, everything, None) == sorted(names)
    assert select(names, (ArchiveContent.BEST,), "checkpoint-1") == ["final/a", "outcome.json"]
    assert select(names[1:], (ArchiveContent.BEST,), "checkpoint-1") == ["checkpoint-1/a", "outcome.json"]
    assert select(names, (ArchiveContent.LOGS,), None) == ["a.log", "outcome.json", "runs/e"]
    assert select([".hidden", "final/x.part", "manifest.json", "progress.json"], everything, None) == []
