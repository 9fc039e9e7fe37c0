"""Suggestions as text and as a patch."""

import pytest
import yaml

from dporun_api.results import Suggestion
from dporun_trainer.suggestions import describe, patch


def test_the_patch_is_yaml_that_changes_only_what_is_suggested() -> None:
    suggestions = (
        Suggestion(path="spec.training.learningRate", current=5e-5, proposed=2e-5, reason="Smaller steps."),
        Suggestion(path="spec.training.epochs", current=4.0, proposed=2, reason="Best was epoch 2."),
        Suggestion(path="spec.lora.dropout", current=0.05, proposed=0.1, reason="Harder to memorise."),
        Suggestion(path="dataset", reason="Get more training data."),
    )
    text = patch(suggestions)
    assert yaml.safe_load(text) == {"spec": {"training": {"learningRate": 2e-5, "epochs": 2}, "lora": {"dropout": 0.1}}}
    assert "# training.learningRate 5e-05 → 2e-05" in text
    assert "Get more training data." in text


@pytest.mark.parametrize(
    ("current", "proposed", "text"),
    [(5e-5, 2e-5, "training.x 5e-05 → 2e-05"), (None, 2, "training.x to 2"), (None, None, "training.x")],
)
def test_one_line_of_what_is_known(current: float | None, proposed: float | None, text: str) -> None:
    assert describe(Suggestion(path="spec.training.x", current=current, proposed=proposed, reason="Why.")) == text
