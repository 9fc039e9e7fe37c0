"""Remedies: concrete changes where the run's values are known, words where they are not."""

from hypothesis import given, settings
from hypothesis import strategies as st

from dporun_trainer.diagnosis.health import RULES
from dporun_trainer.diagnosis.remedies import Observations, Remedy, RunValues
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
    Observations, best_epoch=st.none() | st.floats(0, 9), flat=st.booleans(), onset=st.none() | st.integers(0, 99)
)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(sorted({remedy for rule in RULES for remedy in rule.remedies}, key=str)), UNKNOWN_OR_SOME, SEEN)
def test_no_remedy_says_none(remedy: Remedy, run: RunValues, seen: Observations) -> None:
    """Values that other programs did not record are unknown; a suggestion speaks without them."""
    suggestion = remedy(run, seen)
    if suggestion is not None:
        assert "None" not in f"{describe(suggestion)} {patch([suggestion])} {suggestion.reason}"
        assert suggestion.proposed != suggestion.current or suggestion.proposed is None
