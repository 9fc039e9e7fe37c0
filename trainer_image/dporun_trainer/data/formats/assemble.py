"""Make a pair of what a format found in a row: bring it to one kind, find the prompt, and look for what is wrong."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from dporun_trainer.data.formats.messages import MEDIA, answer, tool_definitions, user
from dporun_trainer.data.pairs import Message, Pair, RowError, Text, common_prefix
from dporun_trainer.data.rows import Row

NO_PROMPT = "no prompt, and no beginning that chosen and rejected have in common"
_SCORES = (
    ("score_chosen", "score_rejected"),
    ("chosen_score", "rejected_score"),
    ("chosen_rating", "rejected_rating"),
    ("chosen-rating", "rejected-rating"),
    ("rating_chosen", "rating_rejected"),
    ("chosen_avg_rating", "rejected_avg_rating"),
)


def assemble(row: Row, prompt: Text | None, chosen: Text, rejected: Text) -> Pair:
    """Make a pair, with the scores and tools that the row has.

    The prompt may be explicit or implicit: what ``chosen`` and ``rejected`` have in common at their start. A prompt
    given as text beside responses that are whole conversations counts as implicit, as in TRL.

    Args:
        row: that it is made from.
        prompt: None for an implicit one.
        chosen: the preferred response, or a whole conversation with it.
        rejected: the other one.

    Raises:
        RowError: something is empty, or the row has more than text. Responses that are the same are none of it:
            dataset.identicalResponses says what becomes of them.

    """
    if isinstance(chosen, str) != isinstance(rejected, str):
        raise RowError("text in one of chosen and rejected, and messages in the other")
    if media := [column for column in MEDIA if row.columns.get(column)]:
        raise RowError(
            f"a column {media[0]}, but training sees text alone: take such rows out, or the column where the text "
            "can be answered without it"
        )
    prompt, chosen, rejected, implicit, repeated = _split(prompt, chosen, rejected)
    remarks = ["the prompt once more at the start of chosen and rejected, where it was taken off"] if repeated else []
    if _is_empty(prompt):
        raise RowError(NO_PROMPT if implicit else "an empty prompt")
    for column, response in (("chosen", chosen), ("rejected", rejected)):
        if _is_empty(response):
            raise RowError(f"an empty {column}")
        if not isinstance(response, str) and response[0]["role"] != "assistant":
            raise RowError(f"a {column} that begins with a message of role {response[0]['role']!r}, not assistant")
    tools: list[dict[str, Any]] = []
    unused = ["chat_template_kwargs"]
    if isinstance(prompt, str):
        unused += ["tools", "system"]
    else:
        tools = tool_definitions(row.columns.get("tools"))
        prompt = _with_system(prompt, row.columns.get("system"))
        remarks += _odd_roles(prompt, [*chosen, *rejected])
    remarks += [f"{column}, which are not used" for column in sorted(unused) if row.columns.get(column)]
    score_chosen, score_rejected = _scores(row.columns)
    if score_chosen is not None and score_rejected is not None and score_chosen < score_rejected:
        remarks.append("a rejected response with a higher score than the chosen one")
    return Pair(
        prompt,
        chosen,
        rejected,
        file=row.file,
        number=row.number,
        implicit=implicit,
        remarks=tuple(remarks),
        tools=tools,
        score_chosen=score_chosen,
        score_rejected=score_rejected,
    )


def _split(prompt: Text | None, chosen: Text, rejected: Text) -> tuple[Text, Text, Text, bool, bool]:
    """Bring the three to one kind, and find the prompt: (prompt, chosen, rejected, implicit, repeated)."""
    if isinstance(chosen, str) or isinstance(rejected, str):
        if prompt is None:
            if chosen == rejected:
                raise RowError("no prompt, and the same in chosen and rejected, so that it cannot be told from them")
            length = _shared_text(str(chosen), str(rejected))
            return chosen[:length], chosen[length:], rejected[length:], True, False
        if isinstance(prompt, str):
            return prompt, chosen, rejected, False, False
        return prompt, answer(str(chosen)), answer(str(rejected)), False, False
    if isinstance(prompt, list):
        repeated = _starts_with(chosen, prompt) and _starts_with(rejected, prompt) and prompt != []
        length = len(prompt) if repeated else 0
        return prompt, chosen[length:], rejected[length:], False, repeated
    length = common_prefix(chosen, rejected)
    if chosen == rejected:  # The last message is the response.
        length = max(length - 1, 0)
    shared = list(chosen[:length])
    if prompt and not _says(shared, prompt):
        after = next((index for index, message in enumerate(shared) if message["role"] != "system"), length)
        return [*shared[:after], user(prompt), *shared[after:]], chosen[length:], rejected[length:], False, False
    return shared, chosen[length:], rejected[length:], True, False


def _says(shared: Sequence[Message], prompt: str) -> bool:
    """Whether the beginning of conversations has what the user asks.

    That is so when their first turn is the user's, though it be worded otherwise than the prompt beside them.
    """
    turns = [message for message in shared if message["role"] != "system"]
    if turns and turns[0]["role"] == "user":
        return True
    return any(message["role"] == "user" and message["content"].strip() == prompt.strip() for message in turns)


def _starts_with(messages: Sequence[Message], prompt: Sequence[Message]) -> bool:
    return list(messages[: len(prompt)]) == list(prompt)


def _shared_text(one: str, other: str) -> int:
    """Length of the longest common beginning that ends between words.

    A space before the responses belongs to them, as tokenizers see it.
    """
    length = common_prefix(one, other)
    while length and any(text[length - 1 : length + 1].isalnum() and length < len(text) for text in (one, other)):
        length -= 1
    return length - 1 if length and one[length - 1] == " " else length


def _is_empty(text: Text) -> bool:
    if isinstance(text, str):
        return not text.strip()
    return not any(message["content"].strip() or message.get("tool_calls") for message in text)


def _with_system(prompt: list[Message], system: object) -> list[Message]:
    """The prompt with the text of a column ``system`` before it, unless it has a system message of its own."""
    if not isinstance(system, str) or not system.strip() or prompt[0]["role"] == "system":
        return prompt
    return [{"role": "system", "content": system}, *prompt]


def _odd_roles(prompt: Sequence[Message], responses: Sequence[Message]) -> list[str]:
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


def _scores(columns: Mapping[str, Any]) -> tuple[float, float] | tuple[None, None]:
    """Scores of chosen and rejected, where the row has both."""
    for names in _SCORES:
        chosen, rejected = (number(columns.get(name)) for name in names)
        if chosen is not None and rejected is not None:
            return chosen, rejected
    return None, None


def number(value: object) -> float | None:
    """A finite number, or a text of one; else None."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None
