"""What a run says of itself."""

from hypothesis import given, settings
from hypothesis import strategies as st

from dporun_api.results import Health, HealthState, Metrics, Progress, Suggestion
from dporun_api.v1alpha1.status import ProgressStatus
from dporun_operator.lifecycle import messages
from dporun_operator.lifecycle.draft import Draft
from dporun_operator.observed import Observed
from dporun_testing.builders import NOW, SETTINGS, a_run
from dporun_testing.paths import ROOT
from dporun_testing.story_book import story_book


def test_the_page_of_messages_is_that_of_the_stories() -> None:
    """So that who reviews a change reads what it says to people."""
    page = (ROOT / "docs" / "messages.md").read_text(encoding="utf-8")
    assert page == story_book(), "docs/messages.md is out of date: run 'make generate', read the difference, commit it"


REASON = "Get more training data."
VALUES = st.one_of(st.none(), st.booleans(), st.integers(0, 9), st.floats(0, 1), st.just("auto"))


@settings(deadline=None)
@given(st.sampled_from(["spec.training.learningRate", "dataset"]), VALUES, VALUES)
def test_a_suggestion_names_a_value_or_speaks_without_one(path: str, current: object, proposed: object) -> None:
    suggestion = Suggestion.model_validate({"path": path, "current": current, "proposed": proposed, "reason": REASON})
    run = a_run({"tensorboard": {"enabled": False}})
    draft = Draft(run, Observed(progress=Progress()), SETTINGS, NOW)
    draft.status.progress = ProgressStatus(step=1, total_steps=2)
    draft.status.metrics = Metrics()
    draft.status.health = Health(state=HealthState.OVERFITTING, evidence=("it rose",), suggestions=(suggestion,))
    said = messages.training(draft, 1)
    assert "None" not in said
    assert said == "Step 1/2. Overfitting: it rose. " + (
        REASON if proposed is None else f"Next time set {path} to {proposed}."
    )
