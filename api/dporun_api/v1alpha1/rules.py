"""Checks across fields, said once for the API server (CEL) and once for Python."""

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, Self

from pydantic import GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from dporun_api.document import Document


class Rule(NamedTuple):
    """What must hold in a document, in two languages that the tests keep in step."""

    cel: str
    holds: Callable[[Any], bool]
    message: str
    """What to write instead."""


class Ruled(Document):
    """A document with rules: its schema carries them as CEL, its validation runs them in Python."""

    rules: ClassVar[tuple[Rule, ...]] = ()

    @model_validator(mode="after")
    def _follow_rules(self) -> Self:
        broken = [rule.message for rule in self.rules if not rule.holds(self)]
        if broken:
            raise ValueError("; ".join(broken))
        return self

    @classmethod
    def validations(cls) -> list[dict[str, str]]:
        """The rules as ``x-kubernetes-validations``."""
        return [{"rule": rule.cel, "message": rule.message} for rule in cls.rules]

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Add the rules to the schema."""
        reference = handler(core_schema)
        if validations := cls.validations():
            handler.resolve_ref_schema(reference)["x-kubernetes-validations"] = validations
        return reference


NOT_FROM_ITSELF = Rule(
    "!has(self.spec.checkpoints) || !has(self.spec.checkpoints.resumeFrom) || "
    "!has(self.spec.checkpoints.resumeFrom.run) || self.spec.checkpoints.resumeFrom.run != self.metadata.name",
    lambda run: run.spec.checkpoints.resume_from is None or run.spec.checkpoints.resume_from.run != run.name,
    "checkpoints.resumeFrom.run is this run itself: name another one",
)
"""The one rule of the whole resource, which has a name and a spec."""
