"""Callbacks of the training loop, apart from a loop."""

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dporun_trainer.run_folder import RunFolder, checkpoints
from dporun_trainer.run_folder.checkpoints import Checkpoints
from dporun_trainer.training.callbacks import Pruning, validations_without_gain


def test_an_undeletable_checkpoint_does_not_stop_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """NFS keeps a file that somebody reads under another name, so that its folder is not empty."""
    for step, loss in ((1, 0.6), (2, 0.5), (3, 0.4)):
        Checkpoints(tmp_path).folder(step).mkdir()
        checkpoints.mark_complete(Checkpoints(tmp_path).folder(step), checkpoints.Marker(step=step, eval_loss=loss))

    def busy(path: Path) -> None:
        raise OSError(39, "Directory not empty", str(path))

    monkeypatch.setattr("shutil.rmtree", busy)
    trainer: Any = SimpleNamespace(
        accelerator=SimpleNamespace(is_main_process=True), run=SimpleNamespace(folder=RunFolder(tmp_path))
    )
    with caplog.at_level(logging.WARNING):
        Pruning(trainer).on_save()
    assert "checkpoint-1" in caplog.text
    assert {one.step for one in Checkpoints(tmp_path).complete()} == {2, 3}, "half-deleted is torn, the others stay"


def test_patience_counts_what_training_made_worse() -> None:
    """The untrained model's validation is no checkpoint to go back to."""
    history = [{"step": step, "eval_loss": loss} for step, loss in ((0, 0.1), (4, 0.5), (8, 0.4), (12, 0.6))]
    assert [validations_without_gain(history[:count]) for count in range(1, 5)] == [0, 0, 0, 1]
