"""General questions, and what counts as a right answer to one."""

import json
import re
import unicodedata
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from dporun_api.document import Document
from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer.errors import RunError


class Question(Document):
    """A general question and what counts as a right answer to it."""

    question: str = Field(min_length=1)
    answer: str = Field(min_length=1)
    """The reference answer."""
    id: str | None = None
    category: str = "general"
    accept: tuple[str, ...] = ()
    """Other right answers."""
    match: Literal["contains", "exact"] = "contains"
    """Whether a right answer contains one of them, or is one, after normalisation."""

    def is_right(self, text: str) -> bool:
        """Whether ``text`` is a right answer: whole words count, case and punctuation do not."""
        words = normalised(text)
        for right in map(normalised, (self.answer, *self.accept)):
            if words == right or (self.match == "contains" and _contains(words, right)):
                return True
        return False


def load_questions(path: Path | None = None) -> list[Question]:
    """Read general questions from JSONL, or the built-in ones.

    Raises:
        RunError: no such file, no questions in it, or rows that are not questions; names the rows.

    """
    if path is None:
        text = resources.files("dporun_trainer.data").joinpath("general_questions.jsonl").read_text(encoding="utf-8")
    else:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RunError(Reason.DATASET_INVALID, f"cannot read general questions: {error}") from error
    questions, errors = [], []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            questions.append(Question.model_validate(json.loads(line)))
        except json.JSONDecodeError as error:
            errors.append(f"row {number} is not JSON ({error.msg})")
        except ValidationError as error:
            first = error.errors()[0]
            errors.append(f"row {number}: {'.'.join(map(str, first['loc'])) or 'it'}: {first['msg']}")
    if errors or not questions:
        more = f" and {len(errors) - 5} more" if len(errors) > 5 else ""
        raise RunError(
            Reason.DATASET_INVALID,
            f"{path}: " + ("; ".join(errors[:5]) + more if errors else "no questions in it"),
            hint='Each row is an object with "question" and "answer", and optionally "accept", "match" and "category".',
        )
    return questions


def normalised(text: str) -> list[str]:
    """Words of ``text`` for comparison: Unicode NFKC, case folded, without punctuation but the minus of a number."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return re.findall(r"(?<!\w)-?\d+(?!\w)|\w+", folded) or folded.split()


def _contains(words: Sequence[str], part: Sequence[str]) -> bool:
    return bool(part) and any(
        list(words[start : start + len(part)]) == list(part) for start in range(len(words) - len(part) + 1)
    )
