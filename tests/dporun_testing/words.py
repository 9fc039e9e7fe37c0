"""Whether what the operator says is said to people."""

import re

from dporun_api.v1alpha1.status import ConditionType
from dporun_operator.lifecycle.plan import Plan

SENTENCE = re.compile(r"(?:[A-Z0-9]|\S+[./-]\S)\S*(?: \S+)*", re.DOTALL)
"""It begins with a capital letter, or with the name of a file or field."""
UNFINISHED = re.compile(r"\b(None|Reason|null)\b| is (True|False|Unknown)$|\.\.|: ?$|  ")
"""Words of a program that were meant for people, or pieces that were joined badly."""


def not_for_people(plan: Plan) -> list[str | None]:
    """What of a plan's message, conditions and Events is no sentence; every condition must be there."""
    conditions = plan.status.conditions
    assert [condition.type for condition in conditions] == list(ConditionType)
    said = [plan.status.message, *(c.message for c in conditions), *(event.message for event in plan.events)]
    return [words for words in said if not SENTENCE.fullmatch(words or "") or UNFINISHED.search(words or "")]
