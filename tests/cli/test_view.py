"""What a person sees while a run goes on."""

import io

from rich.console import Console

from dporun_api.pod import ExitCode
from dporun_api.results import (
    BestCheckpoint,
    Failure,
    Health,
    HealthState,
    Metrics,
    Outcome,
    OutcomeState,
    Progress,
    Stage,
)
from dporun_api.v1alpha1.reasons import Reason
from dporun_cli.view import LiveView, PlainView, metrics

TRAINING = Progress(
    stage=Stage.TRAINING,
    percent=45,
    step=38,
    total_steps=76,
    epoch=1,
    eta_seconds=41,
    metrics=Metrics(eval_loss=0.6681, reward_accuracy=0.867, reward_margin=0.05, learning_rate=4.3e-5),
    best_checkpoint=BestCheckpoint(step=38),
    health=Health(state=HealthState.ON_TRACK),
)
FAILED = Outcome(state=OutcomeState.FAILED, failure=Failure(reason=Reason.DATASET_INVALID, message="row 3 is empty"))


def drawn(view: LiveView) -> list[str]:
    console = Console(file=io.StringIO(), width=100, record=True, force_terminal=True)
    console.print(view)
    return [line.rstrip() for line in console.export_text().splitlines()]


def plain() -> tuple[PlainView, io.StringIO]:
    text = io.StringIO()
    return PlainView(Console(file=text, width=200)), text


def test_training_is_drawn_with_all_that_is_known_of_it() -> None:
    """Position, time left, metrics and health."""
    view = LiveView("polite in results/polite")
    view.start("prepare")
    view.finish("prepare", ExitCode.OK, Outcome(state=OutcomeState.SUCCEEDED, message="300 rows"))
    view.start("train")
    view.progress(TRAINING)
    title, prepared, bar, values, state, archive = drawn(view)
    assert title == "polite in results/polite"
    assert prepared.startswith("✓ Prepare  300 rows")
    assert "45%" in bar
    assert "ETA 41s" in bar
    assert values.split() == ["eval", "loss", "0.6681", "accuracy", "87%", "margin", "0.050", "lr", "4.30e-05"]
    assert state.strip() == "38/76 steps, epoch 1.00  best at step 38  OnTrack"
    assert archive == "· Archive"


def test_every_end_has_its_mark() -> None:
    view = LiveView("run")
    for step, code, outcome in (
        ("prepare", ExitCode.DATA_INVALID, FAILED),
        ("train", ExitCode.PREEMPTED, None),
        ("archive", ExitCode.ERROR, None),
    ):
        view.start(step)
        view.finish(step, code, outcome)
    _, prepare, train, archive = drawn(view)
    assert "✗ Prepare  failed (DatasetInvalid)" in prepare
    assert "‖ Train    stopped; run the same command again to continue" in train
    assert "✗ Archive  failed (exit code 1)" in archive


def test_a_pipe_gets_a_line_per_piece_of_news() -> None:
    view, text = plain()
    view.start("train")
    for progress in (TRAINING, TRAINING, TRAINING.model_copy(update={"step": 39})):
        view.progress(progress)
    view.progress(TRAINING.model_copy(update={"health": Health(state=HealthState.OVERFITTING)}))
    lines = text.getvalue().splitlines()
    assert len(lines) == 3
    assert lines[1].partition(" s  ")[2] == (
        "training:  38/76 steps, epoch 1.00  45%  ETA 41s  eval loss 0.6681  accuracy 87%  margin 0.050  OnTrack"
    )
    assert lines[2].endswith("Overfitting")


def test_words_of_the_trainer_are_never_taken_for_markup() -> None:
    view, text = plain()
    view.finish("train", ExitCode.OK, Outcome(state=OutcomeState.SUCCEEDED, message="kept [bold]rows[/]"))
    assert "kept [bold]rows[/]" in text.getvalue()


def test_metrics_of_validation_come_first_and_are_named_once() -> None:
    known = Metrics(train_loss=0.7, eval_loss=0.6, reward_chosen=1.0, reward_margin=-0.5, grad_norm=1.234)
    assert metrics(known) == [
        ("eval loss", "0.6000"),
        ("margin", "-0.500"),
        ("loss", "0.7000"),
        ("grad norm", "1.23"),
    ]
