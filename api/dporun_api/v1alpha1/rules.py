"""Checks across fields, said once for the API server (CEL) and once for Python."""

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, Self, get_args

from pydantic import GetJsonSchemaHandler, model_validator
from pydantic.fields import FieldInfo
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
    mutable: ClassVar[frozenset[str] | None] = None
    """Fields, by their names on the wire, that may change; None leaves that to the document around this one."""

    @model_validator(mode="after")
    def _follow_rules(self) -> Self:
        broken = [rule.message for rule in self.rules if not rule.holds(self)]
        if broken:
            raise ValueError("; ".join(broken))
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Add the rules, and those of how the document may change, to the schema."""
        reference = handler(core_schema)
        rules = [{"rule": rule.cel, "message": rule.message} for rule in cls.rules] + cls._transition_rules()
        if rules:
            handler.resolve_ref_schema(reference)["x-kubernetes-validations"] = rules
        return reference

    @classmethod
    def immutable(cls) -> tuple[str, ...]:
        """Fields that may not change, as dotted paths below this document."""
        paths: list[str] = []
        for field in cls.model_fields.values():
            section = _section(field)
            if section:
                paths += [f"{field.alias}.{path}" for path in section.immutable()]
            elif field.alias not in (cls.mutable or ()):
                paths.append(str(field.alias))
        return tuple(paths)

    @classmethod
    def _transition_rules(cls) -> list[dict[str, Any]]:
        """Only the API server knows the old document, so these are in CEL alone.

        The shorter ``self.?field == oldSelf.?field`` is beyond its cost limit: the size of an optional value has no
        known bound. A field with a default may be absent too: in the default ``{}`` of the section around it.
        """
        if cls.mutable is None:
            return []
        rules = []
        for field in cls.model_fields.values():
            name = str(field.alias)
            same = f"self.{name} == oldSelf.{name}"
            present = f"has(self.{name}) == has(oldSelf.{name})"
            if _section(field):
                rule = present
            elif name in cls.mutable:
                rule = None
            else:
                rule = same if field.is_required() else f"{present} && (!has(self.{name}) || {same})"
            if rule:
                rules.append({"rule": rule, "fieldPath": f".{name}", **_IMMUTABLE})
        return rules


_IMMUTABLE = {"reason": "FieldValueForbidden", "message": "immutable; create a new DPORun to change it"}


def _section(field: FieldInfo) -> type[Ruled] | None:
    """The document in ``field``, if it says itself what of it may change."""
    for kind in get_args(field.annotation) or (field.annotation,):
        if isinstance(kind, type) and issubclass(kind, Ruled) and kind.mutable is not None:
            return kind
    return None
