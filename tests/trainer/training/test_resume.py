"""Interrupted and resumed in this process: the result is that of a run that nobody interrupted."""

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dporun_api.v1alpha1.reasons import Reason
from dporun_testing import training
from dporun_testing.training import a_config, attempt, stop_at_step
from dporun_trainer.archiving.archive import open_archive
from dporun_trainer.archiving.upload import upload_checkpoints
from dporun_trainer.commands.uploads import fetch
from dporun_trainer.errors import RunError
from dporun_trainer.run_folder import RunFolder, checkpoints
from dporun_trainer.run_folder.checkpoints import Checkpoints
from dporun_trainer.training.resume import checkpoint_to_resume, is_exact

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("single_process")]


@pytest.fixture(scope="module")
def uninterrupted(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two epochs of four steps, with LoRA dropout; a log entry every three steps, so that one spans the epochs."""
    directory = training.prepare(a_config(training=EVERY_THREE), tmp_path_factory.mktemp("uninterrupted"), model)
    attempt(a_config(training=EVERY_THREE), directory)
    return directory


EVERY_THREE = {"logging_steps": 3}


@contextlib.contextmanager
def preempted() -> Iterator[None]:
    from dporun_trainer.training.trainer import Preempted

    with pytest.raises(Preempted):
        yield


@pytest.mark.parametrize("stops", [(1,), (4,), (5,), (8,), (2, 4, 7)])
def test_resuming_is_exact(uninterrupted: Path, model: Path, tmp_path: Path, stops: tuple[int, ...]) -> None:
    config = a_config(training=EVERY_THREE)
    directory = training.prepare(config, tmp_path, model)
    for step in stops:
        with preempted():
            attempt(config, directory, on_trainer=stop_at_step(step))
        newest = checkpoints.newest_complete(Checkpoints(directory).complete())
        assert newest is not None
        assert newest.step == step
    attempt(config, directory)
    assert training.history(directory) == training.history(uninterrupted)
    assert training.adapter_difference(directory / "final", uninterrupted / "final") == 0
    ours, theirs = (json.loads((one / "training_metrics.json").read_text()) for one in (directory, uninterrupted))
    for name in ("train_loss", "eval_loss", "epoch", "num_tokens", "best_step", "total_flos"):
        assert ours[name] == theirs[name], name
    assert ours["attempts"] == len(stops) + 1


def test_a_run_of_the_first_version_goes_on_with_its_history(uninterrupted: Path, model: Path, tmp_path: Path) -> None:
    """Its log is one JSON list; an entry after the checkpoint never happened."""
    config = a_config(training=EVERY_THREE)
    directory = training.prepare(config, tmp_path, model)
    with preempted():
        attempt(config, directory, on_trainer=stop_at_step(4))
    history = RunFolder(directory).history
    entries = history.load()
    history.path.unlink()
    (directory / "log_history.json").write_text(json.dumps([*entries, {"step": 6, "loss": 9.0}]), encoding="utf-8")
    attempt(config, directory)
    assert training.history(directory) == training.history(uninterrupted)
    assert not (directory / "log_history.json").exists()


def test_stopped_at_the_last_step_of_half_an_epoch(model: Path, tmp_path: Path) -> None:
    config = a_config(training={"epochs": 0.5})
    directory = training.prepare(config, tmp_path, model)
    with preempted():
        attempt(config, directory, on_trainer=stop_at_step(2))
    attempt(config, directory)
    assert [(entry["step"], entry["epoch"]) for entry in training.history(directory)] == [
        (1, 0.25), (2, 0.5), (2, 0.5), (2, 0.5),
    ]  # fmt: skip
    assert json.loads((directory / "training_metrics.json").read_text())["steps"] == 2


def test_killed_when_all_is_trained_but_not_written(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next attempt goes on from the newest checkpoint, not the best, and trains no further."""
    config = a_config(training={"epochs": 6, "learning_rate": 1e-30, "early_stopping_patience": 2})
    directory = training.prepare(config, tmp_path, model)

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("dporun_trainer.training.bookkeeping.metrics", killed)
        with pytest.raises(KeyboardInterrupt):
            attempt(config, directory)
    best, newest = Checkpoints(directory).complete()
    assert (best.step, newest.step) == (4, 12)
    attempt(config, directory)
    assert [entry["step"] for entry in training.history(directory) if "eval_loss" in entry] == [4, 8, 12]
    metrics = json.loads((directory / "training_metrics.json").read_text())
    assert (metrics["steps"], metrics["best_step"], metrics["attempts"]) == (12, 4, 2)
    assert [one.step for one in Checkpoints(directory).complete()] == [4]


def test_sums_that_are_not_numbers_go_on(model: Path, tmp_path: Path) -> None:
    config = a_config()
    directory = training.prepare(config, tmp_path, model)

    def poison_and_stop(trainer: Any, stop: Any) -> None:
        compute = trainer.compute_loss
        trainer.compute_loss = lambda *a, **n: compute(*a, **n) * (float("nan") if trainer.model.training else 1)
        stop_at_step(2)(trainer, stop)

    with preempted():
        attempt(config, directory, on_trainer=poison_and_stop)
    attempt(config, directory)
    metrics = json.loads((directory / "training_metrics.json").read_text())
    assert (metrics["non_finite_steps"], metrics["attempts"], metrics["train_loss"]) == (2, 2, "NaN")


def test_stopped_in_the_middle_of_a_validation(uninterrupted: Path, model: Path, tmp_path: Path) -> None:
    config = a_config(training=EVERY_THREE)
    directory = training.prepare(config, tmp_path, model)

    with preempted():
        attempt(config, directory, on_trainer=stop_while_validating)
    (saved,) = Checkpoints(directory).complete()
    assert (saved.step, saved.marker.eval_loss) == (4, None)
    attempt(config, directory)
    assert training.history(directory) == training.history(uninterrupted)


def stop_while_validating(trainer: Any, stop: Any) -> None:
    step = trainer.prediction_step

    def predict(*arguments: Any, **named: Any) -> Any:
        result = step(*arguments, **named)
        stop.set()
        return result

    trainer.prediction_step = predict


def test_a_start_that_is_not_known_is_validated_once(model: Path, tmp_path: Path) -> None:
    """However often the run is stopped, in that validation as well; and it leaves no checkpoint."""
    config = a_config(dpo={"loss": ["sigmoid", "sft"]}, training=EVERY_THREE)
    whole, often = (training.prepare(config, tmp_path / name, model) for name in ("whole", "often"))
    attempt(config, whole)
    with preempted():
        attempt(config, often, on_trainer=stop_while_validating)
    assert Checkpoints(often).complete() == []
    assert training.history(often) == []
    with preempted():
        attempt(config, often, on_trainer=stop_at_step(2))
    attempt(config, often)
    assert training.history(often) == training.history(whole)
    start, *later = [entry for entry in training.history(whole) if "eval_loss" in entry]
    assert [start["step"], *(entry["step"] for entry in later)] == [0, 4, 8]
    assert start["eval_rewards/margins"] == 0
    metrics = json.loads((whole / "training_metrics.json").read_text())
    best = min(later, key=lambda entry: entry["eval_loss"])
    assert (metrics["best_step"], metrics["eval_loss"]) == (best["step"], best["eval_loss"])
    assert RunFolder(whole).progress.read().percent == pytest.approx(90)
    same_curves(often, whole)
    assert curve(whole, "validation", "loss")[0] == (0, pytest.approx(start["eval_loss"]))


@pytest.fixture(scope="module")
def stopped_once(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = training.prepare(a_config(training=EVERY_THREE), tmp_path_factory.mktemp("stopped"), model)
    with preempted():
        attempt(a_config(training=EVERY_THREE), directory, on_trainer=stop_at_step(6))
    return directory


@pytest.fixture
def stopped(stopped_once: Path, tmp_path: Path) -> Path:
    """A run that was stopped at step 6, with checkpoints of steps 4 and 6."""
    return shutil.copytree(stopped_once, tmp_path / "run")


def test_a_torn_checkpoint_is_ignored_and_written_anew(stopped: Path, uninterrupted: Path) -> None:
    (stopped / "checkpoint-6" / "COMPLETE").unlink()
    (stopped / "checkpoint-6" / "adapter_model.safetensors").write_bytes(b"torn")
    attempt(a_config(training=EVERY_THREE), stopped)
    assert training.history(stopped) == training.history(uninterrupted)
    assert training.adapter_difference(stopped / "final", uninterrupted / "final") == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"training": {**EVERY_THREE, "learning_rate": 1e-3}}, "learning_rate: 0.005 then, 0.001 now"),
        ({"training": EVERY_THREE, "lora": {"rank": 8}}, "lora.rank: 4 then, 8 now"),
        ({"training": EVERY_THREE, "topology": {"deepspeed": {"zero_stage": 1}}}, "zeroStage: 2 then, 1 now"),
    ],
)
def test_going_on_with_another_configuration_is_refused(stopped: Path, change: dict[str, Any], words: str) -> None:
    with pytest.raises(RunError) as raised:
        attempt(a_config(**change), stopped)
    assert raised.value.reason is Reason.INVALID_SPEC
    assert words in raised.value.message
    assert "checkpoint-6" in raised.value.message
    assert [one.step for one in Checkpoints(stopped).complete()] == [4, 6]


@pytest.mark.parametrize(
    ("processes", "passes", "refused"),
    [(1, 4, None), (4, 1, None), (1, 2, "worldSize: 2 then, 1 now"), (2, 4, "gradient_accumulation_steps: 2 then")],
)
def test_other_processes_need_the_same_effective_batch(
    tmp_path: Path, processes: int, passes: int, refused: str | None
) -> None:
    """A step has the same rows then, so it is the same step."""
    folder = RunFolder(tmp_path)
    path = folder.checkpoints.folder(4)
    path.mkdir()
    saved = {"worldSize": 2, "gradient_accumulation_steps": 2, "learning_rate": 1e-3}
    checkpoints.mark_complete(path, checkpoints.Marker(step=4, identity=saved))
    wanted = {**saved, "worldSize": processes, "gradient_accumulation_steps": passes}
    if refused is None:
        found = checkpoint_to_resume(a_config(), folder, wanted)
        assert found is not None
        assert not is_exact(found, wanted)
    else:
        with pytest.raises(RunError, match=refused):
            checkpoint_to_resume(a_config(), folder, wanted)


def test_going_on_with_other_data_is_refused(stopped: Path) -> None:
    path = stopped / "inputs" / "prepared.json"
    path.write_text(path.read_text().replace("f" * 64, "e" * 64))
    with pytest.raises(RunError, match="dataset"):
        attempt(a_config(training=EVERY_THREE), stopped)


def test_resume_never_starts_again(stopped: Path) -> None:
    config = a_config(training={"epochs": 0.5, "logging_steps": 1}, checkpoints={"resume": "never"})
    attempt(config, stopped)
    assert [one.step for one in Checkpoints(stopped).complete()] == [2]
    assert json.loads((stopped / "training_metrics.json").read_text())["attempts"] == 1


def test_tensorboard_shows_one_continuous_run(stopped: Path, uninterrupted: Path) -> None:
    (stopped / "checkpoint-6" / "COMPLETE").unlink()  # so that steps 5 and 6 are made, and written, a second time
    attempt(a_config(training=EVERY_THREE), stopped)
    same_curves(stopped, uninterrupted)


def same_curves(one: Path, other: Path) -> None:
    for run, tags in (("train", ("loss", "optimizer/learning_rate", "rewards/margin")), ("validation", ("loss",))):
        for tag in tags:
            assert curve(one, run, tag) == curve(other, run, tag), (run, tag)


def curve(directory: Path, run: str, tag: str) -> list[tuple[int, float]]:
    """Steps and values of a curve on TensorBoard."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(directory / "runs" / run)).Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)]


def test_a_lost_volume_costs_nothing_that_was_uploaded(
    stopped: Path, uninterrupted: Path, model: Path, tmp_path: Path, bucket: str
) -> None:
    """All that an attempt needs to go on exactly comes from the archive; the inputs are prepared again."""
    config = a_config(training=EVERY_THREE, archive={"uri": f"s3://{bucket}/runs"})
    store = open_archive(config.archive, config.run)
    upload_checkpoints(store, RunFolder(stopped), config.run)
    shutil.rmtree(stopped)
    directory = training.prepare(config, tmp_path / "new", model)
    assert fetch(config, RunFolder(directory)) is None
    trainer = attempt(config, directory)
    assert trainer.run.resumed.step == 6
    assert training.history(directory) == training.history(uninterrupted)
    assert training.adapter_difference(directory / "final", uninterrupted / "final") == 0
    ours, theirs = (json.loads((one / "training_metrics.json").read_text()) for one in (directory, uninterrupted))
    for name in ("train_loss", "eval_loss", "best_step", "num_tokens"):
        assert ours[name] == theirs[name], name
    same_curves(directory, uninterrupted)


def test_a_full_disk_is_told_and_loses_nothing(small_disk: Path, model: Path) -> None:
    """Before anything of the checkpoint that does not fit is written."""
    config = a_config()
    directory = training.prepare(config, small_disk, model)

    def fill_the_disk_after_the_first_checkpoint(trainer: Any, _: Any) -> None:
        from transformers import TrainerCallback

        class Fill(TrainerCallback):
            def on_save(self, *_: Any, **_named: Any) -> None:
                free = shutil.disk_usage(small_disk).free
                (small_disk / "filler").write_bytes(b"x" * (free - 40_960))

        trainer.add_callback(Fill())

    with pytest.raises(RunError) as raised:
        attempt(config, directory, on_trainer=fill_the_disk_after_the_first_checkpoint)
    assert raised.value.reason is Reason.DISK_FULL
    assert raised.value.message.startswith("checkpoint-8 needs ")
    assert "3 checkpoints of" in str(raised.value.hint)
    assert [one.step for one in Checkpoints(directory).complete()] == [4]
    assert not Checkpoints(directory).folder(8).exists()
    (small_disk / "filler").unlink()
    attempt(config, directory)
    assert (directory / "final").is_dir()
