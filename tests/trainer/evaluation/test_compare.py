"""Which answer is better, and why."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dporun_trainer.evaluation.compare import Better, Comparison, chrf, compare, repetition, tally

CHOSEN = "Of course! The capital of France is Paris. I hope this helps."
REJECTED = "Everybody knows that it is Paris. Use your head."
LOOP = "no no no no no no no no no no no no no no no no no no no no no no no no"


@pytest.mark.parametrize(
    ("base", "tuned", "better", "why"),
    [
        (REJECTED, CHOSEN, "tuned", "nearer to the chosen response (chrF 1.00"),
        (CHOSEN, REJECTED, "base", "The base model's answer is nearer"),
        ("It is Paris. Use your head!", "Certainly! The capital of France is Paris.", "tuned", "further from the rej"),
        ("Paris.", "Paris.", "tie", "Both answers are the same."),
        ("Of course! The capital is Paris.", "Of course! The capital is Paris!", "tie", "lean about as much"),
        ("", "Paris.", "tuned", "The base model's answer is empty, the tuned model's does not."),
        ("Paris.", "   ", "base", "The tuned model's answer is empty"),
        (CHOSEN, LOOP, "base", "The tuned model's answer repeats itself"),
        ("", LOOP, "tie", "The base model's answer is empty; the tuned model's repeats itself."),
    ],
)
def test_compare(base: str, tuned: str, better: str, why: str) -> None:
    comparison = compare(base=base, tuned=tuned, chosen=CHOSEN, rejected=REJECTED)
    assert comparison.better == better
    assert why in comparison.why


def test_repetition_that_the_task_asks_for_is_no_fault() -> None:
    assert compare(base="No.", tuned=LOOP, chosen=LOOP, rejected="No.").better is Better.TUNED


@settings(max_examples=50)
@given(st.text(max_size=40), st.text(max_size=40))
def test_judging_does_not_depend_on_which_answer_is_whose(one: str, other: str) -> None:
    swap = {Better.TUNED: Better.BASE, Better.BASE: Better.TUNED, Better.TIE: Better.TIE}
    forwards = compare(base=one, tuned=other, chosen=CHOSEN, rejected=REJECTED)
    backwards = compare(base=other, tuned=one, chosen=CHOSEN, rejected=REJECTED)
    assert forwards.better is swap[backwards.better]


def test_chrf_is_the_published_measure() -> None:
    # "abcd" against "abcx": orders 1 to 4 have precision = recall = 3/4, 2/3, 1/2, 0.
    assert chrf("abcd", "abcx") == pytest.approx((3 / 4 + 2 / 3 + 1 / 2 + 0) / 4)
    # Recall weighs more: all of the reference is found, half of the hypothesis is more than that.
    assert chrf("abab", "ab") == pytest.approx(5 * P * 1 / (4 * P + 1))
    assert chrf("Same", "same ") == 1
    assert chrf("", "") == 1
    assert chrf("", "a") == chrf("xyz", "abc") == 0


P = (2 / 4 + 1 / 3) / 2


def test_repetition_counts_what_was_said_before() -> None:
    assert repetition(LOOP) > 0.9
    assert repetition(CHOSEN) == 0
    assert repetition("no no no") == 0  # too short to tell


def test_tally() -> None:
    judged = [Comparison(Better(better), "") for better in ("tuned", "tie", "tuned")]
    assert tally(judged) == {"tuned": 2, "base": 0, "tie": 1}
