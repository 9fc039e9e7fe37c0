"""Data for other methods than DPO: named as what it is, with what to do."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer.data.rows import Row
from dporun_trainer.errors import RunError

_LABELS = ("label", "kto_tag", "desirable")
_TEXT_LABELS = ("true", "false", "1", "0")
_SINGLE = ("completion", "response", "output", "answer", "messages", "conversations", "text")

_LABELLED = (
    "unpaired data with labels, as for KTO: each row has one response and whether it is good",
    "DPO compares two responses to one prompt. Write a good and a bad response to the same prompt into one row, as "
    "chosen and rejected, or train on a set of pairs.",
)
_SUPERVISED = (
    "data for supervised fine-tuning: each row has one response",
    "DPO learns from two responses to one prompt. Add a worse response to each row, as rejected beside chosen, or "
    "train on a set of pairs.",
)
_UNKNOWN = (
    "A row needs a prompt and two responses. If it has them under other names, give these in dataset.columns (prompt, "
    "chosen, rejected); docs/data.md shows each format as rows."
)


def refuse(rows: Sequence[Row]) -> NoReturn:
    """Refuse rows none of which is in a format of pairs.

    Raises:
        RunError: names what they are where that has a name, and says what to do.

    """
    kinds = Counter(kind for row in rows if (kind := _kind(row.columns)))
    if not kinds:
        _refuse(rows, f"{rows[0].file} is in no known format of preference pairs", _UNKNOWN)
    what, hint = max(kinds, key=lambda kind: kinds[kind])
    _refuse(rows, f"{rows[0].file} holds {what}", hint)


def refuse_promptless(rows: Sequence[Row], lacking: int) -> None:
    """Raise when most rows have responses without a prompt: data of a reward model.

    Args:
        rows: the first rows.
        lacking: how many of them have no prompt.

    Raises:
        RunError: says which column may have it.

    """
    if 2 * lacking > len(rows) >= _FEWEST:
        _refuse(
            rows,
            f"{rows[0].file} holds responses without prompts, as for a reward model: {lacking} of its first "
            f"{len(rows)} rows have no prompt, and no beginning that chosen and rejected have in common",
            "Name the column of the prompt in dataset.columns.prompt, or add one.",
        )


def refuse_unread_prompt(rows: Sequence[Row]) -> None:
    """Raise when most rows are two texts without a prompt, beside a text that seems to be it.

    Otherwise the words with which both begin, often one or two, would be the prompt, and the real one lost.

    Args:
        rows: the first rows, in TRL's format.

    Raises:
        RunError: names the column.

    """
    unread = Counter(name for row in rows for name in _unread_prompts(row.columns))
    for name, count in unread.most_common(1):
        if 2 * count > len(rows):
            _refuse(
                rows,
                f"{rows[0].file} has no prompt, but a column {name} that seems to be one",
                f"Set dataset.columns.prompt to {name}. If the prompt is what chosen and rejected have in common at "
                "their start, set dataset.format to Preference.",
            )


def _unread_prompts(columns: Mapping[str, Any]) -> list[str]:
    chosen = columns.get("chosen")
    if columns.get("prompt") is not None or not isinstance(chosen, str):
        return []
    return [
        name
        for name, value in columns.items()
        if _ASKING & set(_WORD.findall(name.lower())) and isinstance(value, str) and _several_words(value)
        if value.strip() not in chosen
    ]


def _several_words(value: str) -> bool:
    return len(value.split(maxsplit=1)) > 1


_WORD = re.compile(r"[^\W_]+")
_ASKING = {
    "prompt", "prompts", "question", "query", "input", "inputs", "instruction", "instructions", "problem", "task",
    "post", "context", "user", "human", "request", "title",
}  # fmt: skip
"""Words in the names of columns that hold what was asked."""

_FEWEST = 2
"""With one row, what it lacks is told as that row's error."""


def _kind(columns: Mapping[str, Any]) -> tuple[str, str] | None:
    if not any(columns.get(name) is not None for name in _SINGLE):
        return None
    if any(_is_label(columns.get(name)) for name in _LABELS):
        return _LABELLED
    return _SUPERVISED


def _is_label(value: object) -> bool:
    """Whether it says good or bad; tables have text only."""
    return isinstance(value, bool | int) or (isinstance(value, str) and value.strip().lower() in _TEXT_LABELS)


def _refuse(rows: Sequence[Row], message: str, hint: str) -> NoReturn:
    columns = sorted({name for row in rows for name in row.columns})
    raise RunError(Reason.DATASET_INVALID, f"{message} (columns {', '.join(columns)})", hint=hint)
