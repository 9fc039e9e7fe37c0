"""What to change about a data set: each finding has its remedy, and none that was applied is proposed again."""

from typing import Any

import pytest

from dporun_api.dataset_report import DropReason
from dporun_testing.dataset_reports import a_report, dropped, some_facts
from dporun_trainer.reporting.dataset_remedies import remedies


def changes(**fields: Any) -> list[str]:
    return [remedy.change for remedy in remedies(a_report(**fields))]


def test_good_data_needs_no_change() -> None:
    assert changes() == []


@pytest.mark.parametrize(
    ("fields", "change", "reason"),
    [
        ({"leaked_prompts": 2, "validation": some_facts()}, "dataset.leaks to Drop", DropReason.LEAK),
        ({"near_leaked_prompts": 1, "validation": some_facts()}, "dataset.leaks to Drop", DropReason.LEAK),
        ({"contradictions": 4}, "dataset.contradictions to Drop", DropReason.CONTRADICTION),
        ({"duplicates": 7}, "dataset.duplicates to Drop", DropReason.DUPLICATE),
        ({"near_duplicates": 7}, "dataset.duplicates to Drop", DropReason.NEAR_DUPLICATE),
    ],
)
def test_a_policy_is_proposed_until_it_is_applied(fields: dict[str, Any], change: str, reason: DropReason) -> None:
    assert changes(**fields) == [change]
    assert changes(**fields, dropped_rows=dropped(reason, 3)) == []


def test_a_longer_limit_is_proposed_where_many_are_cut() -> None:
    assert changes(truncated=49) == []
    (remedy,) = remedies(a_report(truncated=120))
    assert remedy.change == "dpo.maxLength 1024 → 2048"
    assert remedy.reason.startswith("12 % of the pairs are cut or left out. 2,048 tokens hold 99 % of them")
    assert changes(truncated=120, max_length=None) == [], "without a model nothing is cut"


def test_length_bias_has_a_remedy() -> None:
    assert changes(warnings=("length bias: chosen responses are longer",)) == [
        "the pairs, or dpo.loss to [sigmoid_norm]"
    ]
