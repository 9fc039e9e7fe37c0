"""Rows that say chosen and rejected: TRL's format, and those that differ from it in how the prompt is written."""

from collections.abc import Mapping
from typing import Any

from dporun_trainer.data.formats.assemble import assemble
from dporun_trainer.data.formats.messages import (
    answer,
    messages,
    required,
    text,
    text_or_messages,
    user,
    valid,
)
from dporun_trainer.data.pairs import Message, Pair, RowError, Text
from dporun_trainer.data.rows import Row

_CONVERSATIONS = ("conversations", "messages")
_QUESTIONS = ("question", "query", "input", "context")
"""Columns that may hold what the user asks, where there is no prompt."""
_WHOLE = ("messages", "conversations")
"""Second words of the columns chosen_… and rejected_… that hold whole conversations."""
_OF_OPENAI = ("preferred_output", "non_preferred_output")


def is_preference(columns: Mapping[str, Any]) -> bool:
    """Whether there are chosen and rejected."""
    return "chosen" in columns and "rejected" in columns


def from_preference(row: Row) -> Pair:
    """TRL's format: prompt, chosen and rejected as text or messages, the prompt explicit or implicit."""
    prompt = None if row.columns.get("prompt") is None else text_or_messages(row.columns, "prompt")
    return assemble(row, prompt, text_or_messages(row.columns, "chosen"), text_or_messages(row.columns, "rejected"))


def is_sharegpt(columns: Mapping[str, Any]) -> bool:
    """Whether there is a conversation, with a chosen and a rejected message that go on with it.

    Some sets have the whole conversation in chosen and rejected, and once more in ``messages``: those are TRL's.
    """
    if not is_preference(columns):
        return False
    if isinstance(columns.get("conversations"), list):
        return True
    chosen = columns["chosen"]
    first = chosen[0] if isinstance(chosen, list) and chosen else chosen
    begins = first.get("role", first.get("from")) if isinstance(first, dict) else "assistant"
    return isinstance(columns.get("messages"), list) and begins in ("assistant", "gpt") and "prompt" not in columns


def from_sharegpt(row: Row) -> Pair:
    """ShareGPT, as LLaMA-Factory has it: ``conversations``, and chosen and rejected as a message, messages or text."""
    column = next((name for name in _CONVERSATIONS if row.columns.get(name) is not None), _CONVERSATIONS[0])
    prompt = messages(required(row.columns, column), column)
    return assemble(row, prompt, _response(row, "chosen"), _response(row, "rejected"))


def is_alpaca(columns: Mapping[str, Any]) -> bool:
    """Whether there is an instruction with two answers as text."""
    pair = columns.get("output")
    two = isinstance(pair, list) and len(pair) == 2 and all(isinstance(output, str) for output in pair)
    return "instruction" in columns and (two or (is_preference(columns) and isinstance(columns["chosen"], str)))


def from_alpaca(row: Row) -> Pair:
    """Alpaca: ``instruction`` and ``input``, ``history``; chosen and rejected, or ``output`` as [better, worse]."""
    columns = row.columns
    if columns.get("input") is None:
        required(columns, "instruction")
    if not is_preference(columns):
        output = required(columns, "output")
        if not isinstance(output, list) or len(output) != 2:
            raise RowError("an output that is not a list of a better and a worse one")
        columns = columns | dict(zip(("chosen", "rejected"), output, strict=True))
    asked = "\n".join(part for part in (text(columns, "instruction"), text(columns, "input")) if part.strip())
    return _asked(row, _history(columns.get("history")), asked, columns)


def is_question(columns: Mapping[str, Any]) -> bool:
    """Whether there is a question, or a prompt with a system text, with two answers as text."""
    if not is_preference(columns) or not isinstance(columns["chosen"], str):
        return False
    if columns.get("prompt") is None:
        return any(_is_asked(columns, name) for name in _QUESTIONS)
    return has_text_prompt(columns) and has_system(columns)


def _is_asked(columns: Mapping[str, Any], name: str) -> bool:
    """Whether a column has a text that the answers do not begin with: else these have the prompt in them."""
    asked = columns.get(name)
    answers = (columns["chosen"], columns["rejected"])
    return isinstance(asked, str) and not all(
        isinstance(said, str) and asked.strip() and said.lstrip().startswith(asked.strip()) for said in answers
    )


def has_text_prompt(columns: Mapping[str, Any]) -> bool:
    """Whether prompt and answers are text."""
    return all(isinstance(columns.get(name), str) for name in ("prompt", "chosen", "rejected"))


def has_system(columns: Mapping[str, Any]) -> bool:
    """Whether there is a system text that says something."""
    system = columns.get("system")
    return isinstance(system, str) and bool(system.strip())


def from_question(row: Row) -> Pair:
    """``system``, ``question`` (or another of its names), ``chosen`` and ``rejected``, all of them text."""
    names = ("prompt", *_QUESTIONS)
    column = next((name for name in names if row.columns.get(name) is not None), "question")
    required(row.columns, column)
    return _asked(row, [], text(row.columns, column), row.columns)


def is_whole(columns: Mapping[str, Any]) -> bool:
    """Whether there are chosen_messages and rejected_messages, or OpenAI's names of both."""
    return any(
        set(names) <= set(columns) for names in (_OF_OPENAI, *((f"chosen_{w}", f"rejected_{w}") for w in _WHOLE))
    )


def from_whole(row: Row) -> Pair:
    """``chosen_messages`` and ``rejected_messages``: responses, or whole conversations.

    OpenAI has responses: ``input`` with messages and tools, ``preferred_output`` and ``non_preferred_output``.
    """
    if set(_OF_OPENAI) & set(row.columns):
        asked = required(row.columns, "input")
        given: dict[str, Any] = asked if isinstance(asked, dict) else {"messages": asked}
        chosen, rejected = (messages(required(row.columns, name), name) for name in _OF_OPENAI)
        row = Row(row.file, row.number, {"tools": given.get("tools")})
        return assemble(row, messages(given.get("messages"), "input"), chosen, rejected)
    word = next((word for word in _WHOLE if f"chosen_{word}" in row.columns), _WHOLE[0])
    prompt: Text | None = None
    for column in ("prompt_messages", "prompt"):
        if row.columns.get(column) is not None:
            prompt = text_or_messages(row.columns, column)
            break
    chosen, rejected = (messages(required(row.columns, name), name) for name in (f"chosen_{word}", f"rejected_{word}"))
    return assemble(row, prompt, chosen, rejected)


def _response(row: Row, column: str) -> Text:
    value = required(row.columns, column)
    if isinstance(value, str):
        return answer(valid(value, column))
    return messages([value] if isinstance(value, dict) else value, column)


def _asked(row: Row, before: list[Message], asked: str, columns: Mapping[str, Any]) -> Pair:
    required(columns, "chosen")
    required(columns, "rejected")
    chosen, rejected = text(columns, "chosen"), text(columns, "rejected")
    return assemble(row, [*before, user(asked)], chosen, rejected)


def _history(value: object) -> list[Message]:
    """Earlier turns, as [question, answer] each."""
    found: list[Message] = []
    for turn in value if isinstance(value, list) else []:
        if not isinstance(turn, list) or len(turn) != 2 or not all(isinstance(part, str) for part in turn):
            raise RowError("a history that is not a list of a question and an answer each")
        found += [user(valid(turn[0], "history")), *answer(valid(turn[1], "history"))]
    return found
