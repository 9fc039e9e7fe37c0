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
from dporun_trainer.errors import RunError
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
    assert "training.epochs" not in output  # no epoch was any better than the untrained model
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


def write_log(folder: Path, entries: list[dict[str, Any]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    state = {"global_step": len(entries), "epoch": 1.0, "max_steps": len(entries), "log_history": entries}
    (folder / "trainer_state.json").write_text(json.dumps(state))


def losses(first: float, last: float) -> list[dict[str, Any]]:
    return [{"step": step, "epoch": step / 40, "loss": first + (last - first) * step / 40} for step in range(1, 41)]


@pytest.mark.parametrize(
    ("arguments", "first", "note", "objection"),
    [
        ("SFTConfig", 2.1, None, "those of another trainer (SFTConfig)"),
        (None, 2.1, None, "its log has no rewards"),
        (None, 0.69, "The losses begin near ln 2", None),
        ("DPOConfig", 2.1, "No rewards were logged", None),
    ],
)
def test_a_log_without_rewards_is_judged_only_if_dpo(
    tmp_path: Path, arguments: str | None, first: float, note: str | None, objection: str | None
) -> None:
    write_log(tmp_path, losses(first, first / 2))
    if arguments is not None:
        (tmp_path / "training_args.bin").write_bytes(f"ctrl\n{arguments}\n.".encode())
    run = read_run(tmp_path)
    assert all(note is not None and note in text for text in run.notes)
    assert (objection or "") in (run.objection or "")
    assert (run.objection is None) is (objection is None)
    assert bool(run.notes) is (note is not None)


def test_of_several_validation_sets_the_first_is_taken(tmp_path: Path) -> None:
    sets = {"eval_easy_loss": 0.4, "eval_easy_rewards/margins": 1.5, "eval_hard_loss": 0.7}
    write_log(tmp_path, [{"step": 1, "loss": 0.6, "rewards/margins": 0.1}, {"step": 2, **sets}])
    run = read_run(tmp_path)
    assert run.notes == ("Of the validation sets easy, hard this looks at easy alone.",)
    assert Curves.of(run.history).series["eval_rewards/margins"].values == (1.5,)


def test_the_place_that_went_furthest_is_read(tmp_path: Path) -> None:
    """A run that was resumed for more epochs after it had ended, and whose newest checkpoint a crash tore."""
    write_log(tmp_path, losses(0.7, 0.5)[:20])
    write_log(tmp_path / "checkpoint-20", losses(0.7, 0.5)[:20])
    write_log(tmp_path / "checkpoint-30", losses(0.7, 0.5)[:30])
    (tmp_path / "checkpoint-40").mkdir()
    (tmp_path / "checkpoint-40/trainer_state.json").write_text('{"log_hi')
    assert read_run(tmp_path).source == tmp_path / "checkpoint-30/trainer_state.json"


def test_runs_of_trl_are_named_in_their_parent(tmp_path: Path) -> None:
    write_log(tmp_path / "a", losses(0.7, 0.5))
    write_log(tmp_path / "b/checkpoint-40", losses(0.7, 0.5))
    with pytest.raises(RunError) as error:
        read_run(tmp_path)
    assert error.value.hint == "These subfolders contain runs: a, b."
