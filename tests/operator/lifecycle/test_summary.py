"""The columns of kubectl get."""

import pytest

from dporun_api.results import EvaluationSummary, GateOutcome, GateResult, Verdict, VerdictState
from dporun_api.v1alpha1.spec import DPORunSpec
from dporun_api.v1alpha1.status import DPORunStatus
from dporun_operator.lifecycle.summary import columns, short_model


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("hf://Qwen/Qwen2.5-0.5B", "Qwen/Qwen2.5-0.5B"),
        ("s3://bucket/tiny/model/", "tiny/model"),
        ("pvc://c/llama", "llama"),
    ],
)
def test_models_are_told_apart(uri: str, shown: str) -> None:
    assert short_model(uri) == shown


def test_a_number_beside_its_gate_does_not_read_like_it() -> None:
    result = EvaluationSummary(
        accuracy=0.7999,
        avg_chosen_reward=1,
        avg_rejected_reward=-1,
        reward_margin=1.9996,
        forgetting=0.1001,
        examples=90,
    )
    limits = {"accuracy": 0.8, "rewardMargin": 2.0, "forgetting": 0.1}
    gates = [GateResult(name=name, limit=limit, outcome=GateOutcome.MISSED) for name, limit in limits.items()]
    verdict = Verdict(state=VerdictState.FAIR, passed=False, gates=tuple(gates))
    spec = DPORunSpec.model_validate({"model": {"uri": "hf://a/b"}, "dataset": {"train": "hf://a/c"}})

    shown = columns(spec, DPORunStatus(evaluation=result, verdict=verdict))

    assert (shown.accuracy, shown.margin, shown.forgetting) == ("0.7999", "1.9996", "0.1001")
    assert verdict.forgetting(result) == "10.01 %"
