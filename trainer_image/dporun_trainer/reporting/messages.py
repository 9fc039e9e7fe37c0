"""Texts and messages of a pair, for people to read."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

Content = str | Sequence[dict[str, object]]
"""A text, or chat messages."""


@dataclass(frozen=True)
class Turn:
    """A message, or a text, which has no role."""

    role: str
    text: str


def turns(content: Content) -> list[Turn]:
    """Write a text or messages as turns; what is neither is written as JSON."""
    if isinstance(content, str):
        return [Turn("", content)]
    return [_turn(message) for message in content]


def _turn(message: dict[str, object]) -> Turn:
    text = message.get("content")
    rest = {name: value for name, value in message.items() if name not in {"role", "content"}}
    parts = [text if isinstance(text, str) else json.dumps(text, ensure_ascii=False)] if text is not None else []
    parts += [json.dumps(rest, ensure_ascii=False)] if rest else []
    return Turn(str(message.get("role", "")), "\n".join(parts))
