import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from dporun_api.results import Metrics, Progress, Stage
from dporun_trainer.progress import (
    TRAINING_PERCENT,
    ProgressFile,
    Silence,
    TotalWork,
    WorkDone,
    finishing_seconds,
    heartbeat,
    pace,
    percent,
    seconds_left,
)

PLAN = TotalWork(steps=100, evaluations=2, evaluation_size=10)


def test_an_update_keeps_the_other_fields(tmp_path: Path) -> None:
    file = ProgressFile(tmp_path / "progress.json")
    file.update(stage=Stage.TRAINING, step=3, metrics=Metrics(train_loss=0.6))
    file.update(step=4)
    read = file.read()
    assert (read.stage, read.step, read.metrics.train_loss) == (Stage.TRAINING, 4, 0.6)
    assert read.updated_at == pytest.approx(time.time(), abs=60)


def test_a_missing_or_torn_file_reads_as_nothing(tmp_path: Path) -> None:
    file = ProgressFile(tmp_path / "progress.json")
    assert file.read() == Progress()
    (tmp_path / "progress.json").write_text('{"step": 4')
    assert file.read() == Progress()


def test_what_progress_does_not_know_is_refused(tmp_path: Path) -> None:
    file = ProgressFile(tmp_path / "progress.json")
    with pytest.raises(ValidationError):
        file.update(percent=101)
    with pytest.raises(ValidationError):
        file.update(steps=1)


def test_a_disk_that_cannot_be_written_does_not_stop_the_run(tmp_path: Path) -> None:
    (tmp_path / "a_file").write_text("")
    ProgressFile(tmp_path / "a_file" / "progress.json").update(step=1)


def test_a_phase_without_steps_stays_alive(tmp_path: Path) -> None:
    file = ProgressFile(tmp_path / "progress.json")
    with heartbeat(file, seconds=0.01):
        first = file.read().updated_at
        deadline = time.monotonic() + 60
        while file.read().updated_at == first:
            assert time.monotonic() < deadline


def test_silence_begins_anew_with_each_heartbeat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that nobody sets: the time stamp itself only has to change."""
    file = ProgressFile(tmp_path / "progress.json")
    file.update(updated_at=7)
    with monkeypatch.context() as patch:
        clock = [1000.0]
        patch.setattr(time, "monotonic", lambda: clock[0])
        silence = Silence(file)
        clock[0] += 100
        assert silence.seconds() == 100
        file.update(updated_at=5)
        clock[0] += 100
        assert silence.seconds() == 0
        clock[0] += 30
        assert silence.seconds() == 30


def test_nothing_is_foreseen_before_the_first_step() -> None:
    assert pace(PLAN, WorkDone(0, 0)) is None
    assert seconds_left(PLAN, WorkDone(0, 0)) is None
    assert percent(PLAN, WorkDone(0, 0)) == 0


def test_the_first_step_says_little_about_the_others() -> None:
    step, _ = pace(PLAN, WorkDone(3, 0, [30.0, 2.0, 2.0])) or (0, 0)
    assert step == 2.0


def test_an_unmeasured_validation_counts_what_its_pairs_cost() -> None:
    guessed = seconds_left(PLAN, WorkDone(2, 0, [2.0, 2.0]))
    measured = seconds_left(PLAN, WorkDone(2, 1, [2.0, 2.0], [50.0]))
    assert guessed == pytest.approx(98 * 2 + 2 * (2 * 10 * 0.4))
    assert measured == pytest.approx(98 * 2 + 50)


def test_time_left_gets_better_with_time() -> None:
    """Steps that turn out slower than the first ones: the error of the forecast shrinks as they are seen."""
    durations = [9.0] + [1.0] * 5 + [2.0] * 94
    errors = []
    for made in (3, 10, 40, 80):
        forecast = seconds_left(TotalWork(100, 0, 0), WorkDone(made, 0, durations[:made]))
        assert forecast is not None
        errors.append(abs(forecast - sum(durations[made:])))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] == 0


def test_a_resumed_attempt_forecasts_only_what_is_left() -> None:
    assert seconds_left(PLAN, WorkDone(90, 2, [1.0, 1.0])) == 10


def test_what_comes_after_training_is_counted() -> None:
    def estimate(processes: int) -> float:
        return finishing_seconds(answers=100, tokens=100, seconds_per_token=0.02, evaluation=5, processes=processes)

    assert estimate(1) - estimate(4) == pytest.approx(2 * (7 - 2) * 100 * 0.02)
    assert seconds_left(PLAN, WorkDone(100, 2, [1.0]), afterwards=estimate(1)) == estimate(1)


@given(st.lists(st.floats(0.01, 5), min_size=1, max_size=100), st.integers(0, 2))
def test_percent_stays_in_its_share(durations: list[float], evaluations: int) -> None:
    done = WorkDone(len(durations), evaluations, durations, [1.0] * evaluations)
    assert 0 <= percent(PLAN, done) <= TRAINING_PERCENT * (1 + 1e-9)


def test_percent_reaches_the_share_of_training_at_its_end() -> None:
    assert percent(PLAN, WorkDone(100, 2, [1.0], [3.0])) == pytest.approx(TRAINING_PERCENT)
