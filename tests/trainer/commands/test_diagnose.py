"""The command ``diagnose``: what it prints and how it ends."""

import json
from pathlib import Path

import pytest
import yaml

from dporun_testing.paths import UNHEALTHY
from dporun_trainer.__main__ import main


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
