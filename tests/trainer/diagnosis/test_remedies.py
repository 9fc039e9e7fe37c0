"""Remedies: concrete changes where the run's values are known, words where they are not."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dporun_testing.training import a_config
from dporun_trainer.diagnosis.health import RULES
from dporun_trainer.diagnosis.remedies import (
    Observations,
    Remedy,
    RunValues,
    clip_gradients,
    fewer_epochs,
    gentler_learning_rate,
    more_data,
    more_dropout,
    prescribe,
    smooth_labels,
)
from dporun_trainer.suggestions import describe, patch

UNKNOWN_OR_SOME = st.builds(
    RunValues,
    learning_rate=st.none() | st.floats(1e-9, 1),
    epochs=st.none() | st.floats(0.1, 100),
    per_device_batch_size=st.none() | st.integers(1, 64),
    gradient_accumulation_steps=st.none() | st.integers(1, 64),
    max_grad_norm=st.none() | st.floats(0, 10),
    lora_rank=st.none() | st.integers(1, 1024),
    lora_alpha=st.none() | st.integers(1, 1024),
    lora_dropout=st.none() | st.floats(0, 0.9),
    label_smoothing=st.none() | st.floats(0, 0.4),
)
SEEN = st.builds(
    Observations,
    best_epoch=st.none() | st.floats(0, 9),
    flat=st.booleans(),
    onset=st.none() | st.integers(0, 99),
    learnt=st.booleans(),
)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(sorted({remedy for rule in RULES for remedy in rule.remedies}, key=str)), UNKNOWN_OR_SOME, SEEN)
def test_no_remedy_says_none(remedy: Remedy, run: RunValues, seen: Observations) -> None:
    """Values that other programs did not record are unknown; a suggestion speaks without them."""
    suggestion = remedy(run, seen)
    if suggestion is not None:
        assert "None" not in f"{describe(suggestion)} {patch([suggestion])} {suggestion.reason}"
        assert suggestion.proposed != suggestion.current or suggestion.proposed is None


def test_without_an_adapter_nothing_is_said_of_one() -> None:
    """A run that tunes the whole model, or of which nobody knows."""
    every = {remedy for rule in RULES for remedy in rule.remedies}
    changes = [remedy(RunValues(learning_rate=1e-6, epochs=2), Observations(best_epoch=1)) for remedy in every]
    assert not [change.path for change in changes if change is not None and change.path.startswith("spec.lora.")]


def test_gradients_are_clipped_below_the_norm_that_is_set() -> None:
    proposed = {norm: clip_gradients(RunValues(max_grad_norm=norm), Observations()) for norm in (0.0, 1.0, 5.0)}
    assert {norm: change.proposed for norm, change in proposed.items()} == {0.0: 1.0, 1.0: 0.5, 5.0: 1.0}
    unknown = clip_gradients(RunValues(), Observations())
    assert (unknown.current, unknown.proposed) == (None, None)
    assert "Clip gradients at a norm of 1" in unknown.reason


def test_a_run_that_never_learnt_is_not_sent_to_its_best_epoch() -> None:
    seen = Observations(best_epoch=1.0, learnt=False)
    values = RunValues(learning_rate=5e-5, epochs=4, lora_rank=8, lora_dropout=0.05)
    changes = prescribe((fewer_epochs, gentler_learning_rate, more_dropout, more_data), values, seen)
    assert [describe(change) for change in changes] == [
        "training.learningRate 5e-05 → 2e-05",
        "lora.dropout 0.05 → 0.1",
        "dataset",
    ]
    assert "never better than with the untrained model" in changes[-1].reason


@pytest.mark.parametrize(
    ("loss", "suggested"), [(None, True), (("sigmoid", "sft"), True), (("ipo",), False), (("hinge",), False)]
)
def test_label_smoothing_is_for_losses_that_have_it(loss: tuple[str, ...] | None, suggested: bool) -> None:
    assert (smooth_labels(RunValues(loss=loss), Observations()) is not None) is suggested


def test_no_dropout_where_the_adapter_takes_none() -> None:
    """On experts; where nothing was asked, it is what training uses that is raised."""
    config = a_config("moe", lora={"dropout": None})
    assert more_dropout(RunValues.of(config, takes_dropout=False), Observations()) is None
    change = more_dropout(RunValues.of(config), Observations())
    assert change is not None
    assert describe(change) == "lora.dropout 0.05 → 0.1"
