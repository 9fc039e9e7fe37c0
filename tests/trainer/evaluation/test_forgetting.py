"""Catastrophic forgetting: the score, its parts, and the questions."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dporun_api.v1alpha1.reasons import Reason
from dporun_testing.adapters import save_random_adapter
from dporun_testing.paths import TINY
from dporun_testing.tiny_model import save_tiny_model
from dporun_trainer.data.questions import Question, load_questions, normalised
from dporun_trainer.errors import RunError
from dporun_trainer.evaluation.forgetting import Item, measure, results, score
from dporun_trainer.evaluation.policy import load_policy


def an_item(**changes: object) -> Item:
    item = Item("Capital of France?", "Paris", "factual", "Paris.", "Paris.", True, True, 0.1, 0.1, 0.0)
    return dataclasses.replace(item, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("answer", "accept", "match", "said", "right"),
    [
        ("Paris", (), "contains", "It is PARIS, of course.", True),
        ("Paris", (), "contains", "Parisian", False),
        ("Paris", (), "exact", "It is Paris.", False),
        ("hello", (), "exact", "Hello!", True),
        ("12", (), "contains", "It is 123.", False),
        ("12", ("twelve",), "contains", "Twelve", True),
        ("5", (), "contains", "-5", False),
        ("-5", (), "contains", "That is -5.", True),
        ("2", (), "contains", "the 2nd", False),
        ("1, 2, 3", (), "contains", "Sure: 1 2 3", True),
        ("forty-two", (), "contains", "forty two", True),
        ("H2O", ("H₂O",), "contains", "Water is H₂O", True),
        ("thank you", (), "contains", "thank him, you", False),
        ("D", (), "exact", "", False),
        ("+", (), "exact", "+", True),
        ("+", (), "exact", "", False),
    ],
)
def test_is_right(answer: str, accept: tuple[str, ...], match: str, said: str, right: bool) -> None:
    question = Question.model_validate({"question": "?", "answer": answer, "accept": accept, "match": match})
    assert question.is_right(said) is right


def test_normalised_keeps_what_means_something() -> None:
    assert normalised("The  Answer: -7, naïve & Straße!") == ["the", "answer", "-7", "naïve", "strasse"]


def test_score_is_the_share_of_right_answers_lost() -> None:
    """For a base model that knows everything."""
    lost = an_item(tuned="Rome.", tuned_right=False)
    assert score([an_item()] * 3 + [lost]) == pytest.approx(0.25)
    assert score([an_item()] * 4) == 0
    assert score([lost] * 4) == 1


def test_score_is_the_likelihood_lost_by_an_ignorant_base() -> None:
    halved = an_item(base_right=False, tuned_right=False, base_nll=2.0, tuned_nll=2.0 + 0.6931471805599453)
    assert score([halved] * 5) == pytest.approx(0.5)
    assert score([an_item(base_right=False, tuned_right=False)]) == 0
    assert score([]) == 0


def test_learning_makes_up_for_nothing_and_drift_is_nothing() -> None:
    """What was learned does not make up for what was lost; drift alone is no forgetting."""
    lost = an_item(tuned_right=False)
    learned = an_item(base_right=False, tuned_right=True, base_nll=5.0, tuned_nll=0.1)
    assert score([lost, learned]) > 0.9
    assert score([an_item(drift=9.0)]) == 0


items = st.builds(
    an_item,
    base_right=st.booleans(),
    tuned_right=st.booleans(),
    base_nll=st.floats(0, 20),
    tuned_nll=st.floats(0, 20),
    drift=st.floats(-5, 5),
)


@given(st.lists(items, min_size=1, max_size=8), st.data())
def test_score_never_falls_when_an_item_gets_worse(found: list[Item], data: st.DataObject) -> None:
    """It lies between 0 and 1."""
    position = data.draw(st.integers(0, len(found) - 1))
    more = data.draw(st.floats(0, 5))
    worse = list(found)
    worse[position] = dataclasses.replace(
        found[position], tuned_right=False, tuned_nll=found[position].tuned_nll + more
    )
    assert 0 <= score(found) <= score(worse) + 1e-12
    assert score(worse) <= 1


@pytest.mark.parametrize("template", [True, False])
def test_a_model_that_is_its_base_has_forgotten_nothing(tmp_path: Path, template: bool) -> None:
    torch.set_num_threads(1)
    base = save_tiny_model(tmp_path / "base")
    policy = load_policy(save_random_adapter(base, tmp_path / "adapter", scale=0), base=base)
    if not template:
        policy.tokenizer.chat_template = None
    found = measure(policy, load_questions()[:6], max_new_tokens=4)
    assert score(found) == 0
    assert [item.drift for item in found] == pytest.approx([0] * 6)
    assert [item.base for item in found] == [item.tuned for item in found]


def test_a_stronger_random_adapter_forgets_more(tmp_path: Path) -> None:
    """Of what a real model knew."""
    torch.set_num_threads(1)
    questions = load_questions(TINY / "data/general.jsonl")[:40]
    scores, drifts = [], []
    told: list[tuple[str, int, int]] = []
    for scale in (0.01, 0.1, 1.0):
        adapter = save_random_adapter(TINY / "model", tmp_path / str(scale), scale=scale)
        policy = load_policy(adapter, base=TINY / "model")
        found = results(measure(policy, questions, max_new_tokens=12, on_stage=lambda *at: told.append(at)))
        scores.append(found.score)
        drifts.append(found.drift)
    assert found.base_right > 30, "the tiny model knows its quiz"
    assert scores == sorted(scores)
    assert drifts == sorted(drifts)
    assert scores[0] < 0.1
    assert scores[2] > 0.9
    assert found.lost == found.base_right - (found.tuned_right - found.gained)
    assert found.worst[0].base_right
    assert not found.worst[0].tuned_right
    assert len(found.worst) == 10
    assert sum(part.questions for part in found.categories.values()) == 40
    assert ("asking general questions", 40, 40) in told
    assert ("scoring general answers", 40, 40) in told


def test_the_built_in_questions_are_there() -> None:
    questions = load_questions()
    assert len(questions) == 60
    assert all(question.is_right(question.answer) for question in questions)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (['{"question": "a?", "answer": "b"}', "{oops"], "row 2 is not JSON"),
        (['{"question": "a?"}'], "row 1: answer: Field required"),
        (
            ['{"question": "a?", "answer": "b", "match": "fuzzy"}'],
            "row 1: match: Input should be 'contains' or 'exact'",
        ),
        (['{"question": "a?", "answer": "b", "acept": []}'], "row 1: acept: Extra inputs are not permitted"),
        (['["a", "b"]'], "row 1: it:"),
        (["", " "], "no questions in it"),
        (["{}"] * 9, "and 4 more"),
    ],
)
def test_wrong_questions_are_named_by_row(tmp_path: Path, lines: list[str], message: str) -> None:
    path = tmp_path / "general.jsonl"
    path.write_text("\n".join(lines))
    with pytest.raises(RunError, match=r"general\.jsonl") as caught:
        load_questions(path)
    assert message in caught.value.message
    assert caught.value.reason is Reason.DATASET_INVALID


def test_a_missing_file_of_questions_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"nowhere\.jsonl"):
        load_questions(tmp_path / "nowhere.jsonl")


def test_a_question_needs_no_more_than_question_and_answer(tmp_path: Path) -> None:
    path = tmp_path / "general.jsonl"
    path.write_text(json.dumps({"question": "a?", "answer": "b"}) + "\n\n")
    assert load_questions(path) == [Question(question="a?", answer="b")]
