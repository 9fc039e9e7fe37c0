"""The verdict: the specification's marks and the gates, as readable cases."""

from pathlib import Path

import pytest
import yaml

from dporun_api.results import EvaluationSummary, Health
from dporun_api.run_config import Evaluation, Gates, GeneralQuestions
from dporun_trainer.diagnosis.verdict import gates_in_force, judge

CASES = sorted((Path(__file__).parent / "cases" / "verdict").glob("*.yaml"))


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_case(path: Path) -> None:
    case = yaml.safe_load(path.read_text(encoding="utf-8"))
    evaluation = EvaluationSummary.model_validate(case["evaluation"]) if "evaluation" in case else None
    health = Health.model_validate(case["health"]) if "health" in case else None

    verdict = judge(evaluation, Gates.model_validate(case.get("gates", {})), health)

    expected = case["expect"]
    assert (verdict.state, verdict.passed) == (expected["state"], expected["passed"]), verdict.reasons
    if "reasons" in expected:
        assert list(verdict.reasons) == expected["reasons"]
    if "first" in expected:
        assert verdict.reasons[0] == expected["first"]
    if "last" in expected:
        assert verdict.reasons[-1] == expected["last"]


def test_a_check_that_is_switched_off_has_no_gate() -> None:
    asked = Evaluation()
    assert gates_in_force(asked) == asked.gates
    not_asked = Evaluation(general=GeneralQuestions(enabled=False))
    assert gates_in_force(not_asked) == Gates(forgetting=None)
