"""TRL's preference format: prompt, chosen and rejected as text or messages, the prompt explicit or implicit."""

from collections.abc import Sequence

from dporun_trainer.data.formats.messages import answer, is_empty, odd_roles, text_or_messages
from dporun_trainer.data.pairs import Message, Pair, RowError, Text, common_prefix
from dporun_trainer.data.rows import Row

_RESPONSES = ("chosen", "rejected")


def to_pair(row: Row) -> Pair:
    """Understand a row.

    The prompt may be explicit (column ``prompt``) or implicit (what ``chosen`` and ``rejected`` have in common at
    their start). A prompt given as text beside responses that are whole conversations counts as implicit, as in TRL.

    Raises:
        RowError: a column is missing, empty or of the wrong kind, or the responses are the same.

    """
    prompt = None if row.columns.get("prompt") is None else text_or_messages(row.columns, "prompt")
    chosen, rejected = (text_or_messages(row.columns, column) for column in _RESPONSES)
    if isinstance(chosen, str) != isinstance(rejected, str):
        raise RowError("text in one of chosen and rejected, and messages in the other")
    if chosen == rejected:
        raise RowError("the same in chosen and rejected")
    if pictures := [column for column in ("images", "image") if row.columns.get(column)]:
        raise RowError(
            f"a column {pictures[0]}, but training sees text alone: take such rows out, or the column where the text "
            "can be answered without it"
        )
    unused = [column for column in ("tools", "chat_template_kwargs") if row.columns.get(column)]
    remarks = [f"{column}, which are not used" for column in unused]
    prompt, chosen, rejected, implicit, repeated = _split(prompt, chosen, rejected)
    if repeated:
        remarks.append("the prompt once more at the start of chosen and rejected, where it was taken off")
    if is_empty(prompt):
        raise RowError(
            "no prompt, and no beginning that chosen and rejected have in common" if implicit else "an empty prompt"
        )
    for column, response in zip(_RESPONSES, (chosen, rejected), strict=True):
        if is_empty(response):
            raise RowError(f"an empty {column}")
        if not isinstance(response, str) and response[0]["role"] != "assistant":
            raise RowError(f"a {column} that begins with a message of role {response[0]['role']!r}, not assistant")
    if not isinstance(prompt, str):
        remarks += odd_roles(prompt, [*chosen, *rejected])
    return Pair(prompt, chosen, rejected, row.file, row.number, implicit, tuple(remarks))


def _split(prompt: Text | None, chosen: Text, rejected: Text) -> tuple[Text, Text, Text, bool, bool]:
    """Bring the three to one kind, and find the prompt: (prompt, chosen, rejected, implicit, repeated)."""
    if isinstance(chosen, str) or isinstance(rejected, str):
        if prompt is None:
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
    if prompt and not length:
        return [{"role": "user", "content": prompt}], chosen, rejected, False, False
    return chosen[:length], chosen[length:], rejected[length:], True, False


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
