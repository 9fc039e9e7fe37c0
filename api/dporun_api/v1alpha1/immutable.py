"""Which fields may change once a document is stored; in CEL alone, as only the API server knows the old document."""

from typing import ClassVar, get_args

from pydantic.fields import FieldInfo

from dporun_api.v1alpha1.rules import Ruled


class Immutable(Ruled):
    """A document whose fields may not change, apart from the mutable ones and from what sections say themselves.

    A section is a field that is ``Immutable`` itself: it may neither come nor go, and decides about its own fields.
    """

    mutable: ClassVar[frozenset[str]] = frozenset()
    """Fields that may change, by their names on the wire."""

    @classmethod
    def immutable(cls) -> tuple[str, ...]:
        """Fields that may not change, as dotted paths below this document."""
        paths: list[str] = []
        for field in cls.model_fields.values():
            section = _section(field)
            if section:
                paths += [f"{field.alias}.{path}" for path in section.immutable()]
            elif field.alias not in cls.mutable:
                paths.append(str(field.alias))
        return tuple(paths)

    @classmethod
    def validations(cls) -> list[dict[str, str]]:
        """Add the rules of how the document may change."""
        found = super().validations()
        for field in cls.model_fields.values():
            if _section(field):
                rule = _stays_present(field)
            elif field.alias in cls.mutable:
                continue
            else:
                rule = _stays_equal(field)
            found.append({"rule": rule, "fieldPath": f".{field.alias}", **_REFUSAL})
        return found


_REFUSAL = {"reason": "FieldValueForbidden", "message": "immutable; create a new DPORun to change it"}


def _stays_present(field: FieldInfo) -> str:
    return f"has(self.{field.alias}) == has(oldSelf.{field.alias})"


def _stays_equal(field: FieldInfo) -> str:
    """CEL for a field that stays as it is.

    The shorter ``self.?field == oldSelf.?field`` is beyond the API server's cost limit: the size of an optional value
    has no known bound. A field with a default may be absent, too: in the default ``{}`` of the section around it.
    """
    same = f"self.{field.alias} == oldSelf.{field.alias}"
    return same if field.is_required() else f"{_stays_present(field)} && (!has(self.{field.alias}) || {same})"


def _section(field: FieldInfo) -> type[Immutable] | None:
    for kind in get_args(field.annotation) or (field.annotation,):
        if isinstance(kind, type) and issubclass(kind, Immutable):
            return kind
    return None
