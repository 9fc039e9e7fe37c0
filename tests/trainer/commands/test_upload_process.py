"""The loop that uploads checkpoints while training goes on."""

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dporun_testing.processes import PolledEvent
from dporun_testing.run_folders import a_checkpoint, a_run
from dporun_trainer.commands import upload_process
from dporun_trainer.commands.upload_process import keep_uploading
from dporun_trainer.run_folder import RunFolder


def wait_until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_an_outage_is_told_once_and_ridden_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the archive's folder should be is a file, for a while: nothing can be stored."""
    monkeypatch.setattr(upload_process, "_LOOK_SECONDS", 0.01)
    caplog.set_level(logging.DEBUG, upload_process.__name__)
    blocked = tmp_path / "archive"
    config, folder, stop = a_run(str(blocked)), RunFolder(tmp_path / "volume"), PolledEvent()
    assert config.archive
    a_checkpoint(folder.path, 10, 0.5)

    def reported() -> tuple[str | None, bool]:
        upload = folder.checkpoint_upload.read()
        return (upload.checkpoint, upload.problem is not None) if upload else (None, False)

    loop = threading.Thread(target=keep_uploading, args=(config.archive, config.run, folder, stop))
    loop.start()
    try:
        wait_until(lambda: reported() == ("checkpoint-10", False))
        blocked.rename(tmp_path / "elsewhere")
        blocked.write_text("")
        a_checkpoint(folder.path, 20, 0.4)
        wait_until(lambda: caplog.text.count("cannot be uploaded now") > 2)
        assert reported() == ("checkpoint-10", True), "what was uploaded before is still known"
        blocked.unlink()
        wait_until(lambda: reported() == ("checkpoint-20", False))
    finally:
        stop.set()
        loop.join()
    told = [record for record in caplog.records if record.levelno >= logging.INFO]
    assert [record.levelno for record in told if record.name == upload_process.__name__] == [
        logging.WARNING,
        logging.INFO,
    ]
