"""Transcripts: conversations as text with "Human:" and "Assistant:" before each turn, as HH-RLHF has them."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from dporun_trainer.data.formats.assemble import assemble
from dporun_trainer.data.formats.messages import required, text
from dporun_trainer.data.pairs import Message, Pair, RowError, Text
from dporun_trainer.data.rows import Row

_TURN = re.compile(r"(?:^|\n\n)(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}
_NAMES = {role: name for name, role in _ROLES.items()}


def is_transcript(columns: Mapping[str, Any]) -> bool:
    """Whether chosen, or prompt with chosen, is a text whose first turn is Human's."""
    prompt, chosen, rejected = (columns.get(name) for name in ("prompt", "chosen", "rejected"))
    if not isinstance(chosen, str) or not isinstance(rejected, str) or not isinstance(prompt, str | None):
        return False
    whole = ((prompt or "") + chosen).lstrip("\n")
    return whole.startswith("Human:") and "\n\nAssistant:" in whole


def from_transcript(row: Row) -> Pair:
    """Read the turns of chosen and rejected; what they have in common is the prompt.

    Raises:
        RowError: they have no turns, or end with Human's.

    """
    required(row.columns, "chosen")
    required(row.columns, "rejected")
    prompt = text(row.columns, "prompt")
    chosen, rejected = (_turns(prompt + text(row.columns, column), column) for column in ("chosen", "rejected"))
    return replace(assemble(row, None, chosen, rejected), transcript=True)


def prompt_turns(prompt: str) -> list[Message]:
    """Turns of a prompt that is a transcript up to the response to come; none when it is no transcript."""
    if not prompt.lstrip("\n").startswith("Human:"):
        return []
    turns = _turns(prompt, "prompt", ended=False)
    return turns if turns[-1]["content"] else turns[:-1]


def for_template(pair: Pair, template: str | None) -> Pair:
    """The pair as a model with this chat template takes it: turns of a transcript become text where there is none.

    Args:
        pair: any pair.
        template: None where no model is known.

    """
    return as_text(pair) if pair.transcript and template == "" else pair


def as_text(pair: Pair) -> Pair:
    """Write the turns of a transcript as text again: one space after each name."""
    if isinstance(pair.prompt, str):
        return pair
    prompt = _written(pair.prompt) + "\n\nAssistant:"
    chosen, rejected = (_written(response).removeprefix("\n\nAssistant:") for response in (pair.chosen, pair.rejected))
    return replace(pair, prompt=prompt, chosen=chosen, rejected=rejected)


def _turns(whole: str, column: str, *, ended: bool = True) -> list[Message]:
    before, *rest = _TURN.split(whole.strip("\n"))
    turns = [{"role": _ROLES[name], "content": said.strip()} for name, said in zip(rest[::2], rest[1::2], strict=True)]
    if not turns:
        raise RowError(f'a {column} without turns of "Human:" and "Assistant:"')
    if ended and turns[-1]["role"] != "assistant":
        raise RowError(f"a {column} whose last turn is not the assistant's")
    return [{"role": "system", "content": before.strip()}, *turns] if before.strip() else turns


def _written(messages: Text) -> str:
    said = [message for message in messages if isinstance(message, dict)]
    return "".join(
        f"\n\n{_NAMES[message['role']]}: {message['content']}" if message["role"] in _NAMES else message["content"]
        for message in said
    )
