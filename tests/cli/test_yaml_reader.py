"""YAML means offline what it means to kubectl.

The tables are what ``YAMLOrJSONDecoder`` of k8s.io/apimachinery v0.37.0, with which kubectl reads files, made of each.
"""

import json
from typing import Any

import pytest
import yaml

from dporun_cli.yaml_reader import documents

SCALARS: list[tuple[str, Any]] = [
    ("5e-6", 5e-06),
    ("5E-6", 5e-06),
    ("1e3", 1000),
    ("1.5e3", 1500),
    ("1e+3", 1000),
    (".5", 0.5),
    ("5.", 5),
    ("-.5", -0.5),
    ("1.0", 1),
    ("on", True),
    ("Off", False),
    ("yes", True),
    ("No", False),
    ("y", True),
    ("N", False),
    ("true", True),
    ("oN", "oN"),
    ("~", None),
    ("null", None),
    ("0", 0),
    ("-1", -1),
    ("+17", 17),
    ("017", 15),
    ("-017", -15),
    ("0o17", 15),
    ("08", 8),
    ("019", 19),
    ("0x1F", 31),
    ("0X1f", 31),
    ("0b101", 5),
    ("-0b11", -3),
    ("1_000", 1000),
    ("0x_1F", 31),
    ("1_0.5", 10.5),
    ("0_7", 7),
    ("_1", "_1"),
    ("1:30", "1:30"),
    ("190:20:30", "190:20:30"),
    ("2026-01-01", "2026-01-01"),
    ("2026-01-01T10:00:00Z", "2026-01-01T10:00:00Z"),
    ("64Gi", "64Gi"),
    ("500m", "500m"),
    ("1.2.3", "1.2.3"),
    ("1e", "1e"),
    ("0xG", "0xG"),
    (".", "."),
    ("<<", "<<"),
    ("=", "="),
    ('"5e-6"', "5e-6"),
    ("'017'", "017"),
    ("!!str 1", "1"),
    ('!!int "1"', 1),
    ("!!float 1", 1),
    ("!foo 1", "1"),
]

DOCUMENTS: list[tuple[str, Any]] = [
    ("a: &x {b: 1}\nc: *x\n", [{"a": {"b": 1}, "c": {"b": 1}}]),
    ("a: &x {b: 1}\nc: {<<: *x, b: 2}\n", [{"a": {"b": 1}, "c": {"b": 2}}]),
    ("a: &x {b: 1}\nc: {b: 2, <<: *x}\n", [{"a": {"b": 1}, "c": {"b": 1}}]),
    (
        "a: &x {b: 1}\ne: &y {b: 3, f: 4}\nc: {<<: [*x, *y]}\n",
        [{"a": {"b": 1}, "c": {"b": 1, "f": 4}, "e": {"b": 3, "f": 4}}],
    ),
    ("{1: a, on: b, 0x10: c, 1e3: d, .5: e}", [{"0.5": "e", "1": "a", "1000": "d", "16": "c", "true": "b"}]),
    ("a: 1\n---\n# empty\n---\nb: 2\n", [{"a": 1}, {"b": 2}]),
    ("a: |\n  1\n", [{"a": "1\n"}]),
    ("a:\n", [{"a": None}]),
]

REFUSED = [
    "v: .inf",
    "v: -.Inf",
    "v: .NaN",
    "v: !!int x",
    "a: {<<: 3}\n",
    "{~: a}",
    "{[a]: b}",
    "a: &a [*a]\n",
    "a: *b\n",
    "a:\n\tb: 1\n",
    "a: \x01\n",
]


def read(text: str) -> list[Any]:
    return [document.value for document in documents(text)]


@pytest.mark.parametrize(("text", "value"), SCALARS)
def test_a_scalar_is_what_kubectl_makes_of_it(text: str, value: Any) -> None:
    # As JSON, in which 1, 1.0 and true differ.
    assert json.dumps(read(f"v: {text}\n")) == json.dumps([{"v": value}])


@pytest.mark.parametrize(("text", "values"), DOCUMENTS)
def test_a_document_is_what_kubectl_makes_of_it(text: str, values: Any) -> None:
    assert json.dumps(read(text), sort_keys=True) == json.dumps(values, sort_keys=True)


@pytest.mark.parametrize("text", REFUSED)
def test_what_kubectl_refuses_is_refused(text: str) -> None:
    with pytest.raises((yaml.YAMLError, RecursionError)):
        read(text)


@pytest.mark.parametrize("text", ["a: 1\na: 2\n", "a: {b: 1, b: 2}\n", "[{b: 1, b: 2}]\n", "on: 1\nyes: 2\n"])
def test_a_key_given_twice_is_refused(text: str) -> None:
    """kubectl takes the last one."""
    with pytest.raises(yaml.MarkedYAMLError, match="is given twice"):
        read(text)


def test_every_field_has_its_line() -> None:
    """A merged one has that of its source."""
    text = "# run\nbase: &base\n  a: 1\n  b: 2\nrun:\n  <<: *base\n  b: 3\n  list:\n  - x\n  - y: 1\n    z: 2\n"
    (document,) = documents(text)
    paths: list[tuple[str | int, ...]] = [
        (), ("base",), ("run", "a"), ("run", "b"), ("run", "list"), ("run", "list", 1), ("run", "list", 1, "z"),
        ("run", "missing"), ("run", "list", 7, "z"),
    ]  # fmt: skip
    assert [document.line(path) for path in paths] == [2, 2, 3, 7, 8, 10, 11, 5, 8]
