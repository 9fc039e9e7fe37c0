"""The generator of the CRD: structural, documented, small, and what is committed."""

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import pytest
import yaml
from pydantic import Field

from dporun_api.crd import custom_resource_definition, structural
from dporun_api.document import Document
from dporun_api.v1alpha1.formats import PATTERN_HELP
from dporun_api.v1alpha1.spec import DPORunSpec
from dporun_api.v1alpha1.status import DPORunStatus
from dporun_testing.paths import CRD

FOREIGN = {"$ref", "$defs", "anyOf", "oneOf", "allOf", "const", "title", "examples", "propertyNames", "prefixItems"}


class Inner(Document):
    """A section."""

    depth: int = Field(3, ge=1, examples=[4])
    """How deep."""


class Sample(Document):
    """One field per rule of the generator."""

    required: str
    """Must be there."""
    optional: int | None = None
    """Absent or a number."""
    open_or_default: Annotated[float, Field(ge=0)] | None = 0.8
    """A number, or null for none."""
    stage: Literal[2] = 2
    """The only one there is."""
    below_half: float = Field(0, ge=0, lt=0.5)
    """A bound that is no whole number."""
    above_zero: float = Field(1, gt=0)
    """A bound that is one."""
    labels: dict[str, str] = Field({})
    """Any keys."""
    inner: Inner = Inner()
    """A section with defaults."""
    anything: int | str | None = None
    """Several types."""


PROPERTIES = structural(Sample)["properties"]


def nodes(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema inside ``schema``, with its path."""
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from nodes(schema[key], f"{path}[]")


def test_the_committed_crd_is_the_generated_one() -> None:
    assert yaml.safe_load(CRD.read_text(encoding="utf-8")) == custom_resource_definition(), "run make generate"


def test_it_can_be_applied_by_every_client() -> None:
    """Client-side apply keeps the whole object in an annotation of at most 256 KiB; ours leaves room."""
    assert CRD.stat().st_size < 100_000


@pytest.mark.parametrize("model", [DPORunSpec, DPORunStatus])
def test_the_schema_has_only_words_that_the_api_server_knows(model: type[Document]) -> None:
    for path, node in nodes(structural(model)):
        assert not FOREIGN & set(node), path
        assert node.get("additionalProperties") is not False, path
        typed = {"type", "x-kubernetes-int-or-string", "x-kubernetes-preserve-unknown-fields"}
        assert typed & set(node), path


@pytest.mark.parametrize("model", [DPORunSpec, DPORunStatus])
def test_every_field_is_documented(model: type[Document]) -> None:
    for path, node in nodes(structural(model)):
        if not path.endswith("[]"):
            assert node.get("description", "").endswith("."), path


def test_every_value_says_its_default_or_what_absence_means() -> None:
    for path, node in nodes(structural(DPORunSpec)):
        if node.get("default") is not None and "properties" not in node:
            assert re.search(r"Default: .+\.", node["description"]), path


def test_every_text_and_list_of_the_spec_is_bounded() -> None:
    """Unbounded ones make the cost of the rules unbounded, and the API server refuses the CRD."""
    for path, node in nodes(structural(DPORunSpec)):
        match node.get("type"):
            case "string":
                assert "maxLength" in node or "enum" in node, path
            case "array":
                assert "maxItems" in node, path
            case "object" if "additionalProperties" in node:
                assert "maxProperties" in node, path


def test_every_pattern_says_what_to_write() -> None:
    for path, node in nodes(structural(DPORunSpec)):
        if "pattern" in node:
            assert node["pattern"] in PATTERN_HELP, path


def test_optional_is_not_nullable() -> None:
    assert PROPERTIES["optional"] == {"description": "Absent or a number.", "type": "integer"}


def test_nullable_where_null_differs_from_absent() -> None:
    node = PROPERTIES["openOrDefault"]
    assert (node["type"], node["nullable"], node["default"], node["minimum"]) == ("number", True, 0.8, 0)


def test_only_one_value_is_an_enum() -> None:
    assert PROPERTIES["stage"]["enum"] == [2]


def test_a_whole_bound_is_the_schemas_and_another_a_rule() -> None:
    assert (PROPERTIES["aboveZero"]["minimum"], PROPERTIES["aboveZero"]["exclusiveMinimum"]) == (0, True)
    assert PROPERTIES["belowHalf"]["x-kubernetes-validations"] == [
        {"rule": "self < 0.5", "message": "must be less than 0.5"}
    ]
    assert "maximum" not in PROPERTIES["belowHalf"]


def test_a_section_defaults_to_its_fields_defaults() -> None:
    assert PROPERTIES["inner"]["default"] == {}
    assert PROPERTIES["inner"]["properties"]["depth"] == {
        "default": 3,
        "minimum": 1,
        "type": "integer",
        "description": "How deep. Default: 3. Example: 4.",
    }


def test_maps_and_mixed_types() -> None:
    assert PROPERTIES["labels"]["additionalProperties"] == {"type": "string"}
    assert PROPERTIES["anything"]["x-kubernetes-preserve-unknown-fields"] is True
    assert structural(Sample)["required"] == ["required"]


def test_numbers_are_documented_as_people_write_them() -> None:
    description = structural(DPORunSpec)["properties"]["training"]["properties"]["learningRate"]["description"]
    assert description == "Peak learning rate of AdamW. Default: 5e-6. Example: 5e-5."
