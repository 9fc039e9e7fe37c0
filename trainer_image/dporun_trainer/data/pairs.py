"""Preference pairs: what a row must be, how a prompt is found in it, and which prompts are held out."""

import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer.data.rows import Row, read_rows
from dporun_trainer.errors import RunError

Message = dict[str, str]
Text = str | list[Message]
"""A text, or chat messages with ``role`` and ``content``."""

_RESPONSES = ("chosen", "rejected")


class RowError(ValueError):
    """A row cannot be a preference pair; the message names what is wrong with it."""


@dataclass(frozen=True)
class Pair:
    """A prompt with the response that is preferred and the one that is not.

    Attributes:
        prompt: text or messages; the responses are of the same kind.
        chosen: the preferred response.
        rejected: the other one.
        implicit: whether the prompt was found in the responses.
        remarks: what is odd about the row, in words that many rows share.

    """

    prompt: Text
    chosen: Text
    rejected: Text
    file: str = ""
    number: int = 0
    implicit: bool = False
    remarks: tuple[str, ...] = ()

    @property
    def conversational(self) -> bool:
        """Whether it is made of messages."""
        return not isinstance(self.prompt, str)

    def line(self) -> str:
        """The pair as canonical JSON: what is written to disk, and what the fingerprint is computed from."""
        columns = {"prompt": self.prompt, "chosen": self.chosen, "rejected": self.rejected}
        return json.dumps(columns, ensure_ascii=False, separators=(",", ":"))


def to_pair(row: Row) -> Pair:
    """Understand a row.

    The prompt may be explicit (column ``prompt``) or implicit (what ``chosen`` and ``rejected`` have in common at
    their start). A prompt given as text beside responses that are whole conversations counts as implicit, as in TRL.

    Raises:
        RowError: a column is missing, empty or of the wrong kind, or the responses are the same.

    """
    if row.error:
        raise RowError(row.error)
    prompt = None if row.columns.get("prompt") is None else _text(row.columns, "prompt")
    chosen, rejected = (_text(row.columns, column) for column in _RESPONSES)
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
    if _empty(prompt):
        raise RowError(
            "no prompt, and no beginning that chosen and rejected have in common" if implicit else "an empty prompt"
        )
    for column, response in zip(_RESPONSES, (chosen, rejected), strict=True):
        if _empty(response):
            raise RowError(f"an empty {column}")
        if not isinstance(response, str) and response[0]["role"] != "assistant":
            raise RowError(f"a {column} that begins with a message of role {response[0]['role']!r}, not assistant")
    if not isinstance(prompt, str):
        remarks += _odd_roles(prompt, [*chosen, *rejected])
    return Pair(prompt, chosen, rejected, row.file, row.number, implicit, tuple(remarks))


def read_pairs(path: Path) -> list[Pair]:
    """Read preference pairs from JSONL or Parquet.

    Raises:
        RunError: no such file, or rows that are no preference pairs; names them.

    """
    if not path.is_file():
        raise RunError(Reason.DATASET_INVALID, f"{path} is not a file")
    pairs: list[Pair] = []
    wrong: dict[str, Tally] = {}
    for row in read_rows(path):
        try:
            pairs.append(to_pair(row))
        except RowError as error:
            wrong.setdefault(str(error), Tally()).add(row.file, row.number)
    if wrong:
        message = "; ".join(f"{tally}: {what}" for what, tally in list(wrong.items())[:5])
        raise RunError(Reason.DATASET_INVALID, message, hint="Each row needs prompt, chosen and rejected.")
    if not pairs:
        raise RunError(Reason.DATASET_INVALID, f"{path} has no rows")
    return pairs


def held_out(prompts: Iterable[bytes], fraction: float, seed: int) -> set[bytes]:
    """Choose the prompts that are held out, by their digests alone, so that no order of rows matters.

    Args:
        prompts: the digest of every prompt (see prompt_digest).
        fraction: share to hold out, between 0 and 1.
        seed: another one chooses other prompts.

    Returns:
        The digests of those held out: at least one, and not all.

    Raises:
        ValueError: there are fewer than two prompts.

    """
    ordered = sorted(set(prompts), key=lambda digest: hashlib.sha256(b"%d:%b" % (seed, digest)).digest())
    if len(ordered) < 2:
        raise ValueError("at least two different prompts are needed to hold one out")
    return set(ordered[: min(max(round(len(ordered) * fraction), 1), len(ordered) - 1)])


def prompt_digest(prompt: Text) -> bytes:
    """Digest of a prompt, 16 bytes."""
    return _digest(prompt)


def row_digest(pair: Pair, *, swapped: bool = False) -> bytes:
    """Digest of a pair, 16 bytes; with its responses exchanged when ``swapped``."""
    responses = (pair.rejected, pair.chosen) if swapped else (pair.chosen, pair.rejected)
    return _digest(pair.prompt, *responses)


@dataclass
class Tally:
    """Rows with the same defect: how many, and the first few of them."""

    count: int = 0
    first: list[tuple[str, int]] = field(default_factory=list)
    example: str = ""

    def add(self, file: str, number: int, example: str = "") -> None:
        """Count a row; ``example`` says what the first one is like."""
        self.count += 1
        if self.count == 1 and example:
            self.example = f"; row {number} {example}"
        if len(self.first) < 5:
            self.first.append((file, number))

    def __str__(self) -> str:
        more = f" and {self.count - len(self.first)} more" if self.count > len(self.first) else ""
        word = "row" if self.count == 1 else "rows"
        files = {file for file, _ in self.first}
        if len(files) == 1:
            return f"{word} {', '.join(str(number) for _, number in self.first)}{more} of {files.pop()}{self.example}"
        return f"{word} {', '.join(f'{number} of {file}' for file, number in self.first)}{more}{self.example}"


def _text(columns: Mapping[str, Any], column: str) -> Text:
    """Read a column as text or messages; only role and content of a message are kept."""
    value = columns.get(column)
    if value is None:
        raise RowError(f"no {column} among the columns ({', '.join(sorted(columns)) or 'none'})")
    if isinstance(value, str):
        return _valid(value, column)
    if not isinstance(value, list) or not all(isinstance(message, dict) for message in value):
        raise RowError(f"a {column} that is neither text nor a list of messages")
    messages = []
    for message in value:
        if not isinstance(message.get("role"), str) or not isinstance(message.get("content"), str):
            raise RowError(f"a message in {column} without role and content as text")
        if message.get("tool_calls"):
            raise RowError(f"tool calls in {column}, which are not supported")
        messages.append({"role": message["role"], "content": _valid(message["content"], column)})
    return messages


def _valid(text: str, column: str) -> str:
    """JSON can spell half of a UTF-16 pair, which is no text."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RowError(f"characters in {column} that are not Unicode") from error
    return text


def _split(prompt: Text | None, chosen: Text, rejected: Text) -> tuple[Text, Text, Text, bool, bool]:
    """Bring the three to one kind, and find the prompt: (prompt, chosen, rejected, implicit, repeated)."""
    if isinstance(chosen, str) or isinstance(rejected, str):
        if prompt is None:
            length = _shared_text(str(chosen), str(rejected))
            return chosen[:length], chosen[length:], rejected[length:], True, False
        if isinstance(prompt, str):
            return prompt, chosen, rejected, False, False
        return prompt, _answer(str(chosen)), _answer(str(rejected)), False, False
    if isinstance(prompt, list):
        repeated = _starts_with(chosen, prompt) and _starts_with(rejected, prompt) and prompt != []
        length = len(prompt) if repeated else 0
        return prompt, chosen[length:], rejected[length:], False, repeated
    length = common_prefix(chosen, rejected)
    if prompt and not length:
        return [{"role": "user", "content": prompt}], chosen, rejected, False, False
    return chosen[:length], chosen[length:], rejected[length:], True, False


def _answer(text: str) -> Text:
    return [{"role": "assistant", "content": text}] if text else []


def _starts_with(messages: Sequence[Message], prompt: Sequence[Message]) -> bool:
    return list(messages[: len(prompt)]) == list(prompt)


def common_prefix(one: Sequence[object], other: Sequence[object]) -> int:
    """Length of the longest common beginning."""
    length = 0
    for left, right in zip(one, other, strict=False):
        if left != right:
            break
        length += 1
    return length


def _shared_text(one: str, other: str) -> int:
    """Length of the longest common beginning that ends between words.

    A space before the responses belongs to them, as tokenizers see it.
    """
    length = common_prefix(one, other)
    while length and any(text[length - 1 : length + 1].isalnum() and length < len(text) for text in (one, other)):
        length -= 1
    return length - 1 if length and one[length - 1] == " " else length


def _empty(text: Text) -> bool:
    if isinstance(text, str):
        return not text.strip()
    return not any(message["content"].strip() for message in text)


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


def _digest(*parts: object) -> bytes:
    text = json.dumps(parts, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:16]
