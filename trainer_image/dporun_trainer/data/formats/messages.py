"""What the formats share: reading a column as text or as messages, and looking at the messages of a pair."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from dporun_trainer.data.pairs import Message, RowError, Text


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
    """Read a column as text or messages; only role and content of a message are kept.

    Raises:
        RowError: it is missing or neither.

    """
    value = required(columns, column)
    if isinstance(value, str):
        return valid(value, column)
    if not isinstance(value, list) or not all(isinstance(message, dict) for message in value):
        raise RowError(f"a {column} that is neither text nor a list of messages")
    messages = []
    for message in value:
        if not isinstance(message.get("role"), str) or not isinstance(message.get("content"), str):
            raise RowError(f"a message in {column} without role and content as text")
        if message.get("tool_calls"):
            raise RowError(f"tool calls in {column}, which are not supported")
        messages.append({"role": message["role"], "content": valid(message["content"], column)})
    return messages


def valid(text: str, column: str) -> str:
    """JSON can spell half of a UTF-16 pair, which is no text."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RowError(f"characters in {column} that are not Unicode") from error
    return text


def answer(text: str) -> list[Message]:
    """A response as messages; none when it is empty."""
    return [{"role": "assistant", "content": text}] if text else []


def is_empty(text: Text) -> bool:
    """Whether it says nothing."""
    if isinstance(text, str):
        return not text.strip()
    return not any(message["content"].strip() for message in text)


def odd_roles(prompt: Sequence[Message], responses: Sequence[Message]) -> list[str]:
    """What is odd about the order of messages, in words that many rows share."""
    roles = [message["role"] for message in prompt]
    remarks = []
    if roles[-1] == "assistant":
        remarks.append("a prompt that ends with a message of the assistant")
    if "system" in roles[1:]:
        remarks.append("a system message that is not the first")
    if any(one == other != "tool" for one, other in itertools.pairwise(roles)):
        remarks.append("two messages of the same role in succession in the prompt")
    if any(message["role"] != "assistant" for message in responses):
        remarks.append("messages in chosen or rejected that the assistant did not write")
    return remarks
