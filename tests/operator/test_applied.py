"""Whether an object is as it should be."""

from typing import Any

import pytest

from dporun_operator.applied import has

WANTED: dict[str, Any] = {"spec": {"ports": [{"port": 6006}], "selector": {"run": "1"}}}


@pytest.mark.parametrize(
    ("found", "same"),
    [
        ({"spec": {"ports": [{"port": 6006}], "selector": {"run": "1"}}}, True),
        ({"spec": {"ports": [{"port": 6006, "protocol": "TCP"}], "selector": {"run": "1"}, "type": "ClusterIP"}}, True),
        ({"spec": {"ports": [{"port": 6007}], "selector": {"run": "1"}}}, False),
        ({"spec": {"ports": [{"port": 6006}, {"port": 22}], "selector": {"run": "1"}}}, False),
        ({"spec": {"ports": [{"port": 6006}]}}, False),
        ({"spec": {"ports": None, "selector": {"run": "1"}}}, False),
        ({}, False),
    ],
    ids=["equal", "with defaults", "another value", "one more", "a field is gone", "null", "nothing"],
)
def test_an_object_is_as_wanted(found: dict[str, Any], same: bool) -> None:
    assert has(found, WANTED) is same
