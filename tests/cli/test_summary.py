"""What a person sees when a local run has ended."""

import io
from pathlib import Path

from rich.console import Console

from dporun_api.results import (
    EvaluationSummary,
    GateOutcome,
    GateResult,
    Outcome,
    OutcomeState,
    Verdict,
    VerdictState,
)
from dporun_cli.summary import show_result

RESULT = EvaluationSummary(
    accuracy=0.7999, accuracy_low=0.739, accuracy_high=0.85, avg_chosen_reward=1.5, avg_rejected_reward=-1.0,
    reward_margin=2.5, beta=0.3, forgetting=0.014, known_questions=4, better=2, worse=0, equal=11, better_p_value=0.5,
    better_than_base=False, examples=200,
)  # fmt: skip
GATES = (
    GateResult(name="accuracy", limit=0.8, measured=0.7999, outcome=GateOutcome.MISSED, needed_to_decide=1_000_000),
    GateResult(name="rewardMargin", limit=2, measured=2.5, outcome=GateOutcome.PASSED),
    GateResult(name="betterThanBase", limit=0.05, measured=0.5, outcome=GateOutcome.UNDECIDED, needed_to_decide=37),
    GateResult(name="forgetting", limit=0.1, outcome=GateOutcome.NOT_MEASURED),
)


def shown(verdict: Verdict, evaluation: EvaluationSummary | None) -> str:
    text = io.StringIO()
    outcome = Outcome(state=OutcomeState.SUCCEEDED, evaluation=evaluation, verdict=verdict)
    show_result(Console(file=text, width=200), Path("nowhere"), outcome, None)
    return text.getvalue()


def test_it_names_the_gates_that_were_not_passed() -> None:
    verdict = Verdict(state=VerdictState.FAIR, passed=False, gates=GATES, reasons=("Accuracy is fair.",))
    lines = shown(verdict, RESULT).strip().splitlines()
    assert lines == [
        "Fair: accuracy missed, betterThanBase undecided, forgetting not measured",
        "  • Accuracy is fair.",
        "accuracy          79.99 %  (200 pairs; 95 % interval 73.9 % to 85 %)",
        "reward margin     2.50  (at beta 0.3: +1.50 chosen, -1.00 rejected)",
        "forgetting        1.4 %  (of 4 questions that the base model answers)",
        "better than base  not noticeably  (2 better, 0 worse, 11 equal; p = 0.5)",
    ]


def test_a_run_that_was_not_evaluated_has_passed_nothing() -> None:
    assert shown(Verdict(state=VerdictState.FAIR, passed=False), None).strip() == "Fair: not evaluated"


def test_a_run_that_passed_says_so() -> None:
    assert "Good: every gate passed" in shown(Verdict(state=VerdictState.GOOD, passed=True, gates=GATES[1:2]), RESULT)
