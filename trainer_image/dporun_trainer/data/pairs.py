"""Preference pairs: what every row becomes (formats/)."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

Message = dict[str, Any]
Text = str | list[Message]
"""A text, or chat messages with ``role`` and ``content`` as text, and perhaps ``tool_calls``."""


class RowError(ValueError):
    """A row cannot be a preference pair; the message names what is wrong with it."""


class RowSkipped(Exception):  # noqa: N818  no error: there is nothing wrong with the row
    """A row has no preference in it; the message says why."""


@dataclass(frozen=True)
class Pair:
    """A prompt with the response that is preferred and the one that is not.

    Attributes:
        prompt: text or messages; the responses are of the same kind.
        chosen: the preferred response.
        rejected: the other one.
        implicit: whether the prompt was found in the responses.
        remarks: what is odd about the row, in words that many rows share.
        tools: definitions that the chat template shows the model.
        score_chosen: how good somebody found the preferred response.
        score_rejected: the same of the other one.
        transcript: whether the messages were turns of a text, which a model without chat template gets again.

    """

    prompt: Text
    chosen: Text
    rejected: Text
    file: str = ""
    number: int = 0
    implicit: bool = False
    remarks: tuple[str, ...] = ()
    tools: list[dict[str, Any]] = field(default_factory=list)
    score_chosen: float | None = None
    score_rejected: float | None = None
    transcript: bool = False

    @property
    def conversational(self) -> bool:
        """Whether it is made of messages."""
        return not isinstance(self.prompt, str)

    def line(self) -> str:
        """The pair as canonical JSON: what is written to disk, and what the fingerprint is computed from."""
        columns: dict[str, object] = {"prompt": self.prompt, "chosen": self.chosen, "rejected": self.rejected}
        if self.tools:  # As JSON, like TRL: the definitions of two rows need not have the same keys.
            columns["tools"] = json.dumps(self.tools, ensure_ascii=False)
        return json.dumps(columns, ensure_ascii=False, separators=(",", ":"))


def text_digest(text: Text) -> bytes:
    """Digest of a prompt or a response, 16 bytes."""
    return _digest(text)


def row_digest(pair: Pair, *, swapped: bool = False) -> bytes:
    """Digest of a pair, 16 bytes; with its responses exchanged when ``swapped``."""
    responses = (pair.rejected, pair.chosen) if swapped else (pair.chosen, pair.rejected)
    return _digest(pair.prompt, *responses, *pair.tools)


@dataclass
class Tally:
    """Rows with the same defect: how many, and the first few of them.

    Attributes:
        count: how often it was added to, perhaps for several pairs of a row.
        rows: how many rows these are, as long as the pairs of a row come one after the other.
        first: file and number of the first rows.
        example: what the first one is like.

    """

    count: int = 0
    rows: int = 0
    first: list[tuple[str, int]] = field(default_factory=list)
    example: str = ""
    _last: tuple[str, int] | None = None

    def add(self, file: str, number: int, example: str = "") -> None:
        """Count a row, or a pair of it; ``example`` says what the first one is like."""
        self.count += 1
        if (file, number) == self._last:
            return
        self._last = (file, number)
        self.rows += 1
        if self.count == 1 and example:
            self.example = f"; row {number} {example}"
        if len(self.first) < 5:
            self.first.append((file, number))

    def __str__(self) -> str:
        more = f" and {self.rows - len(self.first)} more" if self.rows > len(self.first) else ""
        word = "row" if self.rows == 1 else "rows"
        files = {file for file, _ in self.first}
        if len(files) == 1:
            return f"{word} {', '.join(str(number) for _, number in self.first)}{more} of {files.pop()}{self.example}"
        return f"{word} {', '.join(f'{number} of {file}' for file, number in self.first)}{more}{self.example}"


def common_prefix(one: Sequence[object], other: Sequence[object]) -> int:
    """Length of the longest common beginning."""
    length = min(len(one), len(other))
    if one[:length] == other[:length]:
        return length
    length = 0
    for left, right in zip(one, other, strict=False):
        if left != right:
            break
        length += 1
    return length


def _digest(*parts: object) -> bytes:
    text = json.dumps(parts, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:16]
