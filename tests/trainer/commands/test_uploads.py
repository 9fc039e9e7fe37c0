"""What an attempt does about checkpoints in the archive before it begins, and the process that it starts for them."""

import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from dporun_api.results import OutcomeState
from dporun_api.run_config import RunConfig
from dporun_api.v1alpha1.reasons import Reason
from dporun_testing.ports import free_port
from dporun_testing.processes import running
from dporun_testing.run_folders import a_checkpoint, a_run
from dporun_trainer.archiving.archive import open_archive
from dporun_trainer.archiving.upload import upload_checkpoints
from dporun_trainer.archiving.uploaded import read_index
from dporun_trainer.commands import uploads
from dporun_trainer.commands.uploads import Uploads, fetch, uploading
from dporun_trainer.errors import RunError
from dporun_trainer.run_folder import RunFolder


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    """A run whose archive has the checkpoint of step 20."""
    config = a_run(str(tmp_path / "archive"))
    a_checkpoint(tmp_path / "before", 20, 0.5)
    assert config.archive
    upload_checkpoints(open_archive(config.archive, config.run), RunFolder(tmp_path / "before"), config.run)
    return config


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    (tmp_path / "volume").mkdir()
    return RunFolder(tmp_path / "volume")


def known_to_be_uploaded(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    monkeypatch.setenv("DPORUN_UPLOADED_STEP", str(step))


def steps(folder: RunFolder) -> list[int]:
    return [one.step for one in folder.checkpoints.complete()]


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    """A run whose archive cannot be reached."""
    monkeypatch.setenv("ARCHIVE_AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("ARCHIVE_AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("ARCHIVE_AWS_SECRET_ACCESS_KEY", "secret")
    return a_run("s3://bucket/runs")


def test_an_empty_volume_gets_what_the_archive_has(config: RunConfig, folder: RunFolder) -> None:
    assert fetch(config, folder) is None
    assert steps(folder) == [20]


@pytest.mark.parametrize("checkpoints", [{"resume": "never"}, {"upload": False}])
def test_nothing_is_fetched_that_is_not_wanted(
    config: RunConfig, folder: RunFolder, checkpoints: dict[str, Any]
) -> None:
    assert fetch(RunConfig.model_validate(config.model_dump() | {"checkpoints": checkpoints}), folder) is None
    assert steps(folder) == []


def test_an_outage_does_not_keep_training_from_beginning(refused: RunConfig, folder: RunFolder) -> None:
    a_checkpoint(folder.path, 10, 0.5)
    assert fetch(refused, folder) is None
    assert steps(folder) == [10]


def test_nor_does_a_store_that_is_silent(
    refused: RunConfig, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "PATIENCE_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("ARCHIVE_AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert fetch(refused, folder) is None


def test_an_attempt_does_not_begin_behind_what_was_uploaded(
    refused: RunConfig, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The operator knows of a checkpoint that the volume has not: training from the start would waste its steps."""
    known_to_be_uploaded(monkeypatch, 20)
    a_checkpoint(folder.path, 10, 0.5)
    outcome = fetch(refused, folder)
    assert outcome
    assert outcome.state is OutcomeState.PREEMPTED
    assert "has lost the checkpoint of step 20, and it cannot be fetched now" in outcome.message
    a_checkpoint(folder.path, 20, 0.5)
    assert fetch(refused, folder) is None


@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_a_file_that_is_gone_costs_only_its_checkpoint(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise each attempt would be tried again for ever, for what no other try can fetch."""
    config = a_run(str(tmp_path / "archive") if kind == "folder" else f"s3://{request.getfixturevalue('bucket')}/runs")
    assert config.archive
    a_checkpoint(tmp_path / "before", 10, 0.4)
    a_checkpoint(tmp_path / "before", 20, 0.5)
    store = open_archive(config.archive, config.run)
    upload_checkpoints(store, RunFolder(tmp_path / "before"), config.run)
    store.delete("checkpoint-10/optimizer.pt")
    known_to_be_uploaded(monkeypatch, 20)
    assert fetch(config, folder) is None
    assert steps(folder) == [20]


def test_what_is_lost_everywhere_is_told(config: RunConfig, folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    known_to_be_uploaded(monkeypatch, 20)
    assert config.archive
    open_archive(config.archive, config.run).delete("checkpoints.json")
    with pytest.raises(RunError, match="the checkpoint of step 20 is neither on the volume nor whole in") as raised:
        fetch(config, folder)
    assert raised.value.reason is Reason.VOLUME_LOST


def test_a_pod_that_is_stopped_waits_for_no_upload() -> None:
    """It had failed, and was uploading its last checkpoint when it was asked to stop: it has to tell how it ended."""
    asked: list[float] = []

    def seconds_left() -> float:
        asked.append(1.0 if not asked else 0.0)
        return asked[-1]

    with running(["sh", "-c", "trap '' TERM; echo; while :; do sleep 1; done"], stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()  # now it heeds no SIGTERM
        Uploads(process).finish(seconds_left)
        assert process.poll() is None
        process.kill()
    assert asked == [1.0, 0.0]


@pytest.mark.slow
def test_the_last_checkpoint_is_uploaded_at_the_end(config: RunConfig, folder: RunFolder, tmp_path: Path) -> None:
    """The launcher is asked to stop, the ranks save, and only then does the process get its last try."""
    path = tmp_path / "run.json"
    path.write_text(config.to_json())
    with uploading(config, path, folder) as process:
        deadline = time.monotonic() + 60
        while folder.checkpoint_upload.read() is None:
            assert time.monotonic() < deadline, "the process does not work"
            time.sleep(0.01)
        a_checkpoint(folder.path, 30, 0.4)
        process.finish(lambda: 60)
    assert config.archive
    newest = read_index(open_archive(config.archive, config.run), config.run).newest
    assert newest is not None
    assert newest.step == 30
    reported = folder.checkpoint_upload.read()
    assert reported is not None
    assert (reported.checkpoint, reported.step, reported.problem) == ("checkpoint-30", 30, None)
