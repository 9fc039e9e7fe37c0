"""The command ``diagnose``: what it prints and how it ends."""

import json
import math
from pathlib import Path

import pytest
import yaml

from dporun_testing.paths import UNHEALTHY
from dporun_trainer.__main__ import main
from dporun_trainer.commands.diagnose import sparkline
from dporun_trainer.run_folder.curves import Series


def test_nothing_to_diagnose_is_a_clear_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model.safetensors").touch()
    assert main(["diagnose", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert f"{tmp_path} contains no training history" in error
    assert "Give the output folder of a training run" in error


def test_the_parent_of_runs_names_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diagnose", str(UNHEALTHY)]) == 1
    assert "These subfolders contain runs: confuse, diverge, healthy, overfit, underfit." in capsys.readouterr().err


def test_a_torn_history_is_a_clear_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "log_history.json").write_text('[{"loss": 0.5},')
    assert main(["diagnose", str(tmp_path)]) == 1
    assert f"cannot read {tmp_path / 'log_history.json'}" in capsys.readouterr().err


def test_output_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diagnose", str(UNHEALTHY / "underfit"), "--json"]) == 11
    assert json.loads(capsys.readouterr().out)["state"] == "Underfitting"
    assert main(["diagnose", str(UNHEALTHY / "underfit"), "--patch"]) == 11
    changes = yaml.safe_load(capsys.readouterr().out)
    assert changes["spec"]["training"] == {"learningRate": 1e-5, "epochs": 4}
    assert main(["diagnose", str(UNHEALTHY / "healthy")]) == 0


def unfinished(folder: Path) -> Path:
    """A checkpoint of TRL at a quarter of its run, with full fine-tuning."""
    logs = [
        {
            "step": step,
            "epoch": step / 60,
            "loss": 0.7 - step / 500,
            "rewards/margins": step / 200,
            "learning_rate": 2e-6,
        }
        for step in range(1, 61)
    ]
    state = {"global_step": 60, "epoch": 1.0, "max_steps": 240, "num_train_epochs": 4, "log_history": logs}
    (folder / "checkpoint-60").mkdir()
    (folder / "checkpoint-60/trainer_state.json").write_text(json.dumps(state | {"train_batch_size": 8}))
    return folder


def test_how_far_the_run_is_and_its_settings_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diagnose", str(unfinished(tmp_path))]) == 0
    output = capsys.readouterr().out
    assert "Step 60 of 240, epoch 1 of 4, 25 %, read from checkpoint-60/trainer_state.json" in output
    assert "Learning rate 2e-06, batch per device 8\n" in output
    assert "not recorded" not in output


def test_programs_get_how_far_the_run_is_and_its_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["diagnose", str(unfinished(tmp_path)), "--json"])
    document = json.loads(capsys.readouterr().out)
    assert document["position"] == {
        "step": 60,
        "totalSteps": 240,
        "epoch": 1.0,
        "epochs": 4.0,
        "share": 0.25,
        "finished": False,
    }
    assert document["settings"] == {"learningRate": 2e-6, "epochs": 4.0, "totalSteps": 240, "perDeviceBatchSize": 8}
    assert document["source"] == str(tmp_path / "checkpoint-60/trainer_state.json")


def test_a_run_of_unknown_length_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logs = [{"step": step, "loss": 0.7 - step / 500, "rewards/margins": step / 200} for step in range(1, 61)]
    (tmp_path / "trainer_state.json").write_text(json.dumps({"log_history": logs}))
    main(["diagnose", str(tmp_path)])
    assert "How long the run was to be is not recorded" in capsys.readouterr().out


def test_a_run_that_was_stopped_early_has_ended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = unfinished(tmp_path) / "checkpoint-60/trainer_state.json"
    state = json.loads(path.read_text())
    path.write_text(json.dumps(state | {"log_history": [*state["log_history"], {"step": 60, "train_runtime": 9.0}]}))
    main(["diagnose", str(tmp_path)])
    assert "Step 60 of 240, epoch 1 of 4, 25 %, ended, read from" in capsys.readouterr().out


def test_another_kind_of_run_is_not_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logs = [{"step": step, "loss": 2.0, "mean_token_accuracy": 0.5} for step in range(1, 61)]
    (tmp_path / "trainer_state.json").write_text(json.dumps({"log_history": logs}))
    assert main(["diagnose", str(tmp_path)]) == 3
    output = capsys.readouterr().out
    assert output.startswith("Unknown")
    assert "Not taken for a DPO run: its log has no rewards" in output


def test_a_level_curve_is_drawn_level() -> None:
    assert sparkline(Series((1, 2, 3), (0.693, 0.6931, 0.6929)), 8) == "▁▁▁"
    assert sparkline(Series((1, 2, 3), (0.7, math.nan, 0.4)), 8) == "█!▁"
