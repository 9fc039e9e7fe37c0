"""Messages in the words of chat templates, out of the ways in which data spells them."""

import json
from collections.abc import Mapping
from typing import Any

from dporun_trainer.data.pairs import Message, RowError, Text

_ROLES = {"human": "user", "gpt": "assistant", "observation": "tool"}
_OTHERS_KEPT = ("name", "tool_call_id")
MEDIA = ("images", "image", "videos", "video", "audios", "audio")
"""Columns and types of parts that no text model can read."""


def required(columns: Mapping[str, Any], column: str) -> Any:
    """Value of a column.

    Raises:
        RowError: there is none.

    """
    value = columns.get(column)
    if value is None:
        raise RowError(f"no {column} among the columns ({', '.join(sorted(columns)) or 'none'})")
    return value


def text_or_messages(columns: Mapping[str, Any], column: str) -> Text:
    """Read a column as text or messages.

    Raises:
        RowError: it is missing or neither.

    """
    value = required(columns, column)
    return valid(value, column) if isinstance(value, str) else messages(value, column)


def text(columns: Mapping[str, Any], column: str) -> str:
    """Read a column as text; it is empty when the column is missing.

    Raises:
        RowError: it is something else.

    """
    value = columns.get(column)
    if value is not None and not isinstance(value, str):
        raise RowError(f"a {column} that is not text")
    return valid(value or "", column)


def messages(value: object, column: str) -> list[Message]:
    """Read messages: ``role`` and ``content`` as of OpenAI, or ``from`` and ``value`` as of ShareGPT.

    Kept are role, content, tool calls, and what ties a result to its call. Arguments of calls become objects, as chat
    templates want them.

    Raises:
        RowError: it is no list of messages, or one of them has something else than text and calls.

    """
    if not isinstance(value, list) or not all(isinstance(message, dict) for message in value):
        raise RowError(f"a {column} that is neither text nor a list of messages")
    return [_message(message, column) for message in value]


def valid(content: str, column: str) -> str:
    """JSON can spell half of a UTF-16 pair, which is no text."""
    try:
        content.encode()
    except UnicodeEncodeError as error:
        raise RowError(f"characters in {column} that are not Unicode") from error
    return content


def user(content: str) -> Message:
    """A message of the user."""
    return {"role": "user", "content": content}


def answer(content: str) -> list[Message]:
    """A response as messages; none when it is empty."""
    return [{"role": "assistant", "content": content}] if content else []


def tool_definitions(value: object) -> list[dict[str, Any]]:
    """Read the column ``tools``: a list of definitions, or JSON of one; as a chat template wants them.

    Raises:
        RowError: it is something else.

    """
    if not value or (isinstance(value, str) and not value.strip()):
        return []
    found = _parsed(value)
    if not isinstance(found, list) or not all(isinstance(tool, dict) for tool in found):
        raise RowError("tools that are not a list of definitions")
    bare = [_without_nulls(tool) for tool in found]
    return [tool if "function" in tool else {"type": "function", "function": tool} for tool in bare]


def _message(message: Mapping[str, Any], column: str) -> Message:
    of_sharegpt = "from" in message and "role" not in message
    role, content = (message.get(key) for key in (("from", "value") if of_sharegpt else ("role", "content")))
    calls = message.get("tool_calls")
    if of_sharegpt and role == "function_call":
        role, content, calls = "assistant", "", _parsed(content) or "nothing"
    if isinstance(role, str):
        role = _ROLES.get(role, role)
    if content is None and calls:
        content = ""
    if isinstance(content, list):
        content = "".join(_part(part, column) for part in content)
    if not isinstance(role, str) or not isinstance(content, str):
        raise RowError(f"a message in {column} without role and content as text")
    read: Message = {"role": role, "content": valid(content, column)}
    if calls:
        read["tool_calls"] = _calls(calls, column)
    return read | {key: message[key] for key in _OTHERS_KEPT if isinstance(message.get(key), str)}


def _part(part: object, column: str) -> str:
    """Text of a part of a message's content: ``{type: text, text: …}``, or ``value`` as LLaMA-Factory has it."""
    known: dict[str, Any] = part if isinstance(part, dict) else {}
    kind, said = known.get("type"), known.get("text")
    if said is None:  # Parquet has both keys, one of them null.
        said = known.get("value")
    if isinstance(said, str) and kind in ("text", None):
        return said
    raise RowError(f"a part of a message in {column} that is no text ({kind or 'unknown'}): training sees text alone")


def _calls(calls: object, column: str) -> list[dict[str, Any]]:
    """Tool calls in the words of OpenAI; each may be bare, as ``{name, arguments}``."""
    found = []
    for item in calls if isinstance(calls, list) else [calls]:
        call: dict[str, Any] = item if isinstance(item, dict) else {}
        function = call.get("function", call)
        name, arguments = (function.get(key) if isinstance(function, dict) else None for key in ("name", "arguments"))
        arguments = {} if arguments is None else _parsed(arguments)
        if not isinstance(name, str) or not isinstance(arguments, dict):
            raise RowError(f"a tool call in {column} that is no name with arguments in JSON")
        known = {"id": call["id"]} if isinstance(call.get("id"), str) else {}
        function = {"name": name, "arguments": _without_nulls(arguments)}
        found.append({**known, "type": "function", "function": function})
    return found


def _parsed(value: object) -> Any:
    """The value that a text is the JSON of, or the value itself; None when it is no JSON."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value) if value.strip() else None
    except ValueError:
        return None


def _without_nulls(value: Any) -> Any:
    """Take away what Parquet adds: there every row has all keys that any row has."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value
