"""Runs as DPORun, transformers and TRL leave them in their folders."""

import json
from pathlib import Path
from typing import Any

import pytest

from dporun_api.results import HealthState
from dporun_testing.paths import UNHEALTHY
from dporun_trainer.__main__ import main
from dporun_trainer.commands import diagnose as command
from dporun_trainer.diagnosis.health import examine
from dporun_trainer.diagnosis.measurements import Measurements
from dporun_trainer.diagnosis.remedies import RunValues
from dporun_trainer.diagnosis.run_reader import read_run
from dporun_trainer.run_folder.curves import Curves


@pytest.mark.parametrize(
    ("file", "wrap"),
    [
        ("log_history.json", lambda entries: entries),
        ("trainer_state.json", lambda entries: {"log_history": entries}),
        ("checkpoint-200/trainer_state.json", lambda entries: {"log_history": entries}),
    ],
)
def test_a_foreign_run_is_found_and_read(
    tmp_path: Path, file: str, wrap: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    entries = json.loads((UNHEALTHY / "overfit/log_history.json").read_text(encoding="utf-8"))
    (tmp_path / "checkpoint-8").mkdir()
    (tmp_path / "checkpoint-8/trainer_state.json").write_text(json.dumps({"log_history": entries[:9]}))
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(json.dumps(wrap(entries)))
    (tmp_path / "README.md").write_text("### Training hyperparameters\n- learning_rate: 0.001\n- num_epochs: 10\n")
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 8, "lora_alpha": 16, "lora_dropout": 0.0}))

    assert main(["diagnose", str(tmp_path)]) == command.EXIT_CODES[HealthState.OVERFITTING] == 10

    output = capsys.readouterr().out
    assert f"read from {file}" in output
    assert "training.learningRate 0.001 → 0.0005" in output
    assert "training.epochs 10 → 1" in output
    assert read_run(tmp_path).settings == RunValues(
        learning_rate=0.001, epochs=10, lora_rank=8, lora_alpha=16, lora_dropout=0
    )


def test_a_run_that_left_only_tensorboard_logs_is_read(tmp_path: Path) -> None:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    entries = json.loads((UNHEALTHY / "overfit/log_history.json").read_text(encoding="utf-8"))
    half = len(entries) // 2
    attempts = {"b": entries[: half + 6], "a": entries[half:]}  # the second attempt, a, repeats steps
    for wall_time, (name, part) in enumerate(attempts.items(), start=1):
        writer = EventFileWriter(str(tmp_path / "runs" / name))
        for entry in part:
            side = "eval/" if "eval_loss" in entry else "train/"
            for key in entry.keys() - {"step"}:
                tag = "train/epoch" if key == "epoch" else side + key.removeprefix("eval_")
                value = Summary.Value(tag=tag, simple_value=entry[key])
                writer.add_event(Event(wall_time=wall_time, step=entry["step"], summary=Summary(value=[value])))
        writer.close()

    read = Curves.of(read_run(tmp_path).history)

    written = Curves.of(entries)
    for key in ("loss", "eval_loss", "grad_norm", "eval_rewards/margins"):
        assert read.series[key].steps == written.series[key].steps
        assert read.series[key].values == pytest.approx(written.series[key].values)
    assert examine(read, RunValues()).state is HealthState.OVERFITTING


def healthy_state(steps: int) -> dict[str, Any]:
    """trainer_state.json of a checkpoint at ``steps`` of 240: a healthy run whose loss falls slowly at first."""
    logs = [
        {
            "step": step,
            "epoch": step / 60,
            "loss": 0.693 - 0.022 * step / 60 if step < 61 else 0.671 - (step - 60) / 400,
        }
        for step in range(1, steps + 1)
    ]
    return {"global_step": steps, "epoch": steps / 60, "max_steps": 240, "num_train_epochs": 4, "log_history": logs}


@pytest.mark.parametrize("name", ["trainer_state.json", "checkpoint-60/trainer_state.json"])
def test_a_checkpoint_knows_that_its_run_is_not_finished(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(json.dumps(healthy_state(60)))

    run = read_run(tmp_path)

    assert (run.settings.total_steps, run.settings.epochs) == (240, 4)
    measured = Measurements(Curves.of(run.history), run.settings)
    assert (measured.progress, measured.finished) == (0.25, False)
    assert examine(measured.curves, run.settings).state is not HealthState.UNDERFITTING


def test_a_run_may_be_past_its_last_log(tmp_path: Path) -> None:
    state = healthy_state(240) | {"log_history": healthy_state(200)["log_history"]}
    (tmp_path / "trainer_state.json").write_text(json.dumps(state))
    run = read_run(tmp_path)
    assert Measurements(Curves.of(run.history), run.settings).progress == 1
