"""The general questions that come with the trainer and with the tiny example."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from dporun_testing.paths import ROOT, TINY

BUILT_IN = ROOT / "trainer_image" / "dporun_trainer" / "data" / "general_questions.jsonl"
CATEGORIES = {"factual", "arithmetic", "commonsense", "instruction"}


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def matches(answer: str, item: dict[str, Any]) -> bool:
    """Whether the answer is right by the item's own rule, letter case and outer punctuation aside."""
    accepted = [text.casefold() for text in (item["answer"], *item["accept"])]
    given = answer.casefold().strip()
    if item["match"] == "exact":
        return given.rstrip(".!") in accepted
    return any(re.search(rf"(?<!\w){re.escape(text)}(?!\w)", given) for text in accepted)


@pytest.mark.parametrize(
    ("path", "count"), [(BUILT_IN, 60), (TINY / "data" / "general.jsonl", 80)], ids=["built-in", "tiny"]
)
def test_general_questions_are_well_formed(path: Path, count: int) -> None:
    items = rows(path)
    assert len(items) == len({item["id"] for item in items}) == len({item["question"] for item in items}) == count
    assert {item["category"] for item in items} == CATEGORIES
    for item in items:
        assert item["match"] in {"exact", "contains"}
        assert all(matches(text, item) for text in (item["answer"], *item["accept"]))


def test_built_in_questions_are_not_answered_by_repeating_them() -> None:
    parroted = [
        item["id"] for item in rows(BUILT_IN) if item["category"] != "instruction" and matches(item["question"], item)
    ]
    assert parroted == []
