"""The models of the API: what may change, and rules that are the same in CEL and in Python."""

from collections.abc import Iterator
from typing import Annotated, Any, TypeVar, get_args

import pytest
import yaml
from pydantic import TypeAdapter, ValidationError

from dporun_api.document import Document
from dporun_api.v1alpha1.formats import PATTERN_HELP, amount
from dporun_api.v1alpha1.immutable import Immutable
from dporun_api.v1alpha1.rules import NOT_FROM_ITSELF, Ruled
from dporun_api.v1alpha1.spec import Archive, Dataset, DPORunSpec, RunPolicy
from dporun_api.v1alpha1.status import DPORunStatus
from dporun_testing.manifests import dporun
from dporun_testing.paths import REFUSED


def spec(**changes: Any) -> DPORunSpec:
    return DPORunSpec.model_validate(dporun("run", changes)["spec"])


K = TypeVar("K", bound=Ruled)


def every(kind: type[K]) -> list[type[K]]:
    """All that the API has of a kind of document."""
    return [each for child in kind.__subclasses__() for each in (child, *every(child))]


def test_every_kind_of_document_is_found() -> None:
    assert {Dataset, Archive, DPORunSpec} <= set(every(Ruled))
    assert {Archive, RunPolicy, DPORunSpec} == set(every(Immutable))


def test_the_shortest_manifest_is_enough() -> None:
    assert spec().training.epochs == 2


def test_an_unknown_field_is_an_error() -> None:
    with pytest.raises(ValidationError, match="epoch"):
        spec(training={"epoch": 3})


def test_a_quantity_may_be_a_whole_number() -> None:
    assert spec(resources={"requests": {"cpu": 8}}).resources.requests == {"cpu": "8"}
    with pytest.raises(ValidationError):
        spec(resources={"requests": {"cpu": True}})


@pytest.mark.parametrize(
    ("quantity", "value"),
    [("64Gi", 64 * 2**30), ("1.5G", 1.5e9), ("500m", 0.5), ("8", 8), ("1e9", 1e9), ("2Ei", 2**61)],
)
def test_a_quantity_is_a_number(quantity: str, value: float) -> None:
    assert amount(quantity) == value


@pytest.mark.parametrize(
    "uri",
    [
        "hf://squad",
        "hf://owner/name?config=a-b&split=train[:10%]+test[-5:]",
        "hf://datasets/owner/name@refs%2Fpr%2F1/data/train-*.parquet?split=train[5%:10%]",
        "s3://bucket/pairs/**/*.jsonl.zst?split=train",
        "pvc://data/train-[0-4].csv",
    ],
)
def test_addresses_of_data(uri: str) -> None:
    assert spec(dataset={"train": uri}).dataset.train == uri


@pytest.mark.parametrize("quantity", ["", "Gi", "4 GB", "4gi", "four"])
def test_what_is_no_quantity_is_an_error(quantity: str) -> None:
    with pytest.raises(ValueError, match="is no quantity such as 500m"):
        amount(quantity)


def documents(kind: object) -> Iterator[type[Document]]:
    """Every document inside ``kind``."""
    if isinstance(kind, type) and issubclass(kind, Document):
        yield kind
        for field in kind.model_fields.values():
            yield from documents(field.annotation)
    for part in get_args(kind):
        yield from documents(part)


def test_the_example_of_every_field_is_valid() -> None:
    for kind in documents(DPORunSpec):
        for field in kind.model_fields.values():
            for example in field.examples or ():
                TypeAdapter(Annotated[field.annotation, "documented", *field.metadata]).validate_python(example)


def test_a_field_means_to_the_api_what_it_means_to_the_trainer() -> None:
    for kind in documents(DPORunSpec):
        for parent in kind.__mro__[1:]:
            for name, field in getattr(parent, "model_fields", {}).items():
                assert kind.model_fields[name].description == field.description, f"{kind.__name__}.{name}"


def test_what_may_change() -> None:
    immutable = DPORunSpec.immutable()
    assert {"model", "training", "storage", "archive.uri", "runPolicy.maxRetries"} <= set(immutable)
    assert not {"suspend", "deletionPolicy", "tensorboard", "archive.secretRef"} & set(immutable)
    assert "runPolicy.ttlSecondsAfterFinished" not in immutable


def test_mutable_names_are_fields() -> None:
    for kind in every(Immutable):
        assert kind.mutable <= {str(field.alias) for field in kind.model_fields.values()}, kind


def test_every_broken_rule_is_named() -> None:
    with pytest.raises(ValidationError) as caught:
        spec(dataset={"validation": "s3://bucket/train.jsonl", "validationFraction": 0.1})
    (error,) = caught.value.errors()
    assert "not both" in error["msg"]
    assert "must not be the training data" in error["msg"]


def test_every_rule_and_pattern_has_a_case_for_both_languages() -> None:
    """The cases run against the API server, and offline; so CEL and Python cannot drift apart unseen."""
    cases = [yaml.safe_load(path.read_text()) for path in REFUSED]
    messages = {rule.message for kind in every(Ruled) for rule in kind.rules} | set(PATTERN_HELP.values())
    messages.add(NOT_FROM_ITSELF.message)
    for message in messages:
        assert any(message.startswith(case["offline"].partition(": ")[2].partition(", not ")[0]) for case in cases), (
            message
        )


def test_a_path_may_hold_dots_but_no_parent() -> None:
    assert spec(dataset={"train": "s3://bucket/v1..2/pairs.jsonl"}).dataset.train.endswith("pairs.jsonl")
    for path in ("a/../b", "a/.."):
        with pytest.raises(ValidationError, match=r"must not contain '\.\.'"):
            spec(dataset={"train": f"pvc://claim/{path}"})


def test_status_of_a_newer_operator_can_be_read() -> None:
    condition = {"status": "True", "reason": "Glitters", "lastTransitionTime": "2026-01-05T10:00:00Z"}
    newer = {
        "phase": "Dreaming",
        "attempt": 2,
        "somethingNew": 1,
        "archive": {"state": "Running", "somethingNew": 1},
        "failure": {"reason": "Bewitched", "message": "Who knows?"},
        "conditions": [
            {**condition, "type": kind, "observedGeneration": 1, "message": ""} for kind in ("Shiny", "Prepared")
        ],
    }
    status = DPORunStatus.model_validate(newer, extra="ignore")
    assert (status.phase, status.attempt) == (None, 2)
    assert [(found.type, found.reason) for found in status.conditions] == [("Prepared", "Glitters")]
    assert status.failure is not None
    assert (status.failure.reason, status.failure.message) == ("TrainerError", "Who knows?")
