"""The base of every document that operator and trainer exchange."""

from typing import Annotated, Any

from pydantic import AllowInfNan, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

Finite = Annotated[float, AllowInfNan(False)]
"""A float that is a number: NaN and the infinities have no place in JSON, so an unknown value is absent instead."""


class Document(BaseModel):
    """Immutable, camelCase on the wire, and strict: an unknown field is an error, never ignored."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
    )

    def to_json(self, *, indent: int | None = None, exclude_none: bool = False) -> str:
        """Serialise with the names used on the wire.

        ``exclude_none`` leaves absent values out, for documents in which null and absent mean the same; in a
        RunConfig they do not (a gate that is null is open, an absent one has its default).
        """
        return self.model_dump_json(by_alias=True, exclude_none=exclude_none, indent=indent)


def inherited(parent: type[Document], name: str, **changes: Any) -> Any:
    """``Field`` of a subclass, or of another document, that means what ``name`` means in ``parent``.

    It has the text, the examples and the default of that one, and the ``changes``, as arguments of ``Field``.
    """
    field = parent.model_fields[name]
    return Field(**{"default": field.default, "description": field.description, "examples": field.examples} | changes)
