"""The verdict: the specification's marks and the gates, as readable cases."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dporun_api.results import EvaluationSummary, GateOutcome, Health, VerdictState
from dporun_api.run_config import Evaluation, Gates
from dporun_trainer.diagnosis.verdict import MAX_FORGETTING, judge
from dporun_trainer.significance import sign_test, wilson

CASES = sorted((Path(__file__).parent / "cases" / "verdict").glob("*.yaml"))
GOOD = {
    "accuracy": 0.95, "avgChosenReward": 2, "avgRejectedReward": -2, "rewardMargin": 4.0, "rewardMarginLow": 3.5,
    "rewardMarginHigh": 4.5, "beta": 0.1, "examples": 200, "better": 120, "worse": 20, "equal": 60,
    "betterPValue": 1e-18, "forgetting": 0.02, "knownQuestions": 60,
}  # fmt: skip
"""What a case says under ``but`` differs from this."""


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_case(path: Path) -> None:
    case = yaml.safe_load(path.read_text(encoding="utf-8"))
    result = None if case.get("not evaluated") else EvaluationSummary.model_validate(GOOD | case.get("but", {}))
    health = Health.model_validate(case["health"]) if "health" in case else None

    verdict = judge(result, Evaluation.model_validate(case.get("asked", {})), health)

    expected = case["expect"]
    assert (verdict.state, verdict.passed) == (expected["state"], expected["passed"]), verdict.reasons
    gates = {gate.name: gate.outcome for gate in verdict.gates if gate.outcome is not GateOutcome.PASSED}
    assert gates == expected.get("gates", {}), verdict.reasons
    if "in force" in expected:
        assert [gate.name for gate in verdict.gates] == expected["in force"]
    if "reasons" in expected:
        assert list(verdict.reasons) == expected["reasons"]
    if "first" in expected:
        assert verdict.reasons[0] == expected["first"]
    for sentence in expected.get("says", ()):
        assert sentence in verdict.reasons


def test_the_limit_of_an_open_gate_is_its_default() -> None:
    assert Gates().forgetting == MAX_FORGETTING


@st.composite
def results(draw: st.DrawFn) -> EvaluationSummary:
    """Results with and without answers and general questions, often at the marks."""
    examples = draw(st.sampled_from([1, 5, 15, 16, 40, 200]))
    accuracy = draw(st.sampled_from([0.0, 0.69999, 0.7, 0.7999, 0.8, 0.81, 0.95, 1.0]))
    margin = draw(st.sampled_from([-1.0, 0.99999, 1.0, 1.9999, 2.0, 2.1, 4.0]))
    interval = (margin - 0.3, margin + 0.3) if examples >= 16 else (None, None)
    counts = draw(st.sampled_from([(0, 0, 0), (1, 0, 200), (2, 0, 11), (60, 10, 30), (10, 60, 30), (5, 5, 5)]))
    low, high = wilson(accuracy, examples)
    return EvaluationSummary(
        accuracy=accuracy, accuracy_low=low, accuracy_high=high, avg_chosen_reward=margin, avg_rejected_reward=0,
        reward_margin=margin, reward_margin_low=interval[0], reward_margin_high=interval[1], examples=examples,
        better=counts[0], worse=counts[1], equal=counts[2],
        better_p_value=sign_test(*counts[:2]) if any(counts) else None,
        forgetting=draw(st.sampled_from([None, 0.0, 0.1, 0.1000001, 1.0])),
        known_questions=draw(st.sampled_from([0, 4, 19, 20, 60])),
    )  # fmt: skip


@given(results())
def test_by_default_only_a_good_or_fair_result_passes(result: EvaluationSummary) -> None:
    verdict = judge(result, Evaluation())
    if verdict.state is VerdictState.NEEDS_IMPROVEMENT:
        assert not verdict.passed, verdict
    if verdict.state is VerdictState.GOOD:
        assert verdict.passed, verdict


@given(results(), st.booleans())
def test_what_was_not_measured_is_not_good(result: EvaluationSummary, general: bool) -> None:
    verdict = judge(result, Evaluation.model_validate({"general": {"enabled": general}}))
    if result.forgetting is None or not general or not (result.better + result.worse + result.equal):
        assert verdict.state is not VerdictState.GOOD
        assert any("measured" in reason or "compared" in reason for reason in verdict.reasons)


@given(results())
def test_every_gate_that_did_not_pass_is_a_reason(result: EvaluationSummary) -> None:
    verdict = judge(result, Evaluation())
    names = {gate.name for gate in verdict.gates if gate.outcome is not GateOutcome.PASSED}
    assert verdict.passed == (not names)
    for name in names:
        assert any(reason.startswith(f"Gate evaluation.gates.{name} ") for reason in verdict.reasons)


@given(results())
def test_a_verdict_fits_into_a_status(result: EvaluationSummary) -> None:
    verdict: dict[str, Any] = judge(result, Evaluation()).model_dump()
    assert len(verdict["reasons"]) <= 20
    assert len(verdict["gates"]) == 4
