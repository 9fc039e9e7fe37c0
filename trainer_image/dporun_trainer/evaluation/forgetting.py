"""How much general knowledge a tuned model has lost against its base: catastrophic forgetting, measured offline."""

import json
import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from dporun_trainer.contract.base import Document
from dporun_trainer.contract.results import FailureReason
from dporun_trainer.errors import RunError
from dporun_trainer.evaluation.batching import OnStage, stage
from dporun_trainer.evaluation.generate import answers_of_both
from dporun_trainer.evaluation.policy import Policy
from dporun_trainer.evaluation.scoring import Tokens, encode_prompt, logps_of_both

MAX_NEW_TOKENS = 48
"""Longest answer to a general question, in tokens."""
WORST = 10


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

    def is_right(self, said: str) -> bool:
        """Whether ``said`` is a right answer: whole words count, case and punctuation do not."""
        words = normalised(said)
        for right in map(normalised, (self.answer, *self.accept)):
            if words == right or (self.match == "contains" and _contains(words, right)):
                return True
        return False


@dataclass(frozen=True)
class Item:
    """What one question showed.

    Attributes:
        question: as asked.
        answer: the reference answer.
        category: of the question.
        base: what the base model says.
        tuned: what the tuned model says.
        base_right: whether the base model is right.
        tuned_right: whether the tuned model is right.
        base_nll: negative log-likelihood of the reference answer under the base model, nats per token.
        tuned_nll: the same under the tuned model.
        drift: how much less likely the base model's own answer has become, nats per token; negative when more likely.

    """

    question: str
    answer: str
    category: str
    base: str
    tuned: str
    base_right: bool
    tuned_right: bool
    base_nll: float
    tuned_nll: float
    drift: float

    @property
    def weight(self) -> float:
        """How far the base model knew this, 0 to 1: 1 when it was right, else the answer's likelihood per token."""
        return 1.0 if self.base_right else math.exp(-self.base_nll)

    @property
    def loss(self) -> float:
        """Share of that which is lost, from 0 to 1.

        Of a right answer: all of it when the tuned model is wrong, else nothing. Of an answer the base model did not
        give: the share by which the reference answer has become less likely.
        """
        if self.base_right:
            return 0.0 if self.tuned_right else 1.0
        return 0.0 if self.tuned_right else 1 - math.exp(-max(0.0, self.tuned_nll - self.base_nll))


def score(items: Sequence[Item]) -> float:
    """Share of the base model's general knowledge that the tuned model lost: 0 is nothing, 1 is everything.

    The mean of what was lost of each item, weighted by how far the base model knew it::

        sum(weight * loss) / sum(weight)

    A base model that answers well is judged by answers; one that answers nothing rightly by the likelihood of the
    reference answers, so the score exists for weak models, too. It never falls when an answer gets worse or less
    likely; what was learned anew makes up for nothing. Drift from the base model's wording is reported and not
    counted: a tuned model is meant to speak differently, not to know less.
    """
    known = sum(item.weight for item in items)
    return sum(item.weight * item.loss for item in items) / known if known > 0 else 0.0


def measure(
    policy: Policy,
    questions: Sequence[Question],
    *,
    batch_size: int = 8,
    max_new_tokens: int = MAX_NEW_TOKENS,
    on_stage: OnStage | None = None,
) -> list[Item]:
    """Ask both models every question.

    Args:
        policy: the tuned model and its base.
        questions: what to ask.
        batch_size: questions at a time.
        max_new_tokens: longest answer, in tokens.
        on_stage: told how it goes on.

    Raises:
        RunError: one question does not fit into the GPU's memory.

    """
    asked = [_prompt(question, policy) for question in questions]
    answers = answers_of_both(
        policy,
        asked,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        on_progress=stage(on_stage, "asking general questions", models=2),
    )
    references = [
        Tokens(tuple(prompt), tuple(_reference_ids(question, policy)))
        for prompt, question in zip(asked, questions, strict=True)
    ]
    said = [Tokens(tuple(prompt), both.base.tokens) for prompt, both in zip(asked, answers, strict=True)]
    scored = logps_of_both(
        policy,
        [*references, *said],
        batch_size=batch_size,
        on_progress=stage(on_stage, "scoring general answers", models=4),
    )
    return [
        Item(
            question=question.question,
            answer=question.answer,
            category=question.category,
            base=both.base.text,
            tuned=both.tuned.text,
            base_right=question.is_right(both.base.text),
            tuned_right=question.is_right(both.tuned.text),
            base_nll=-reference.base.per_token,
            tuned_nll=-reference.tuned.per_token,
            drift=own.base.per_token - own.tuned.per_token,
        )
        for question, both, reference, own in zip(
            questions, answers, scored[: len(questions)], scored[len(questions) :], strict=True
        )
    ]


def results(items: Sequence[Item]) -> dict[str, Any]:
    """Put ``forgetting.json`` together: the score, what it is made of, and the worst examples first."""
    lost = [item for item in items if item.base_right and not item.tuned_right]
    worst = sorted(items, key=lambda item: (-item.weight * item.loss, -item.drift))
    return {
        "score": score(items),
        "questions": len(items),
        "base_right": sum(item.base_right for item in items),
        "tuned_right": sum(item.tuned_right for item in items),
        "lost": len(lost),
        "gained": sum(item.tuned_right and not item.base_right for item in items),
        "base_nll": _mean([item.base_nll for item in items]),
        "tuned_nll": _mean([item.tuned_nll for item in items]),
        "drift": _mean([item.drift for item in items]),
        "categories": {category: _category(items, category) for category in sorted({i.category for i in items})},
        "worst": [asdict(item) | {"loss": item.loss} for item in worst[:WORST] if item.weight * item.loss > 0],
        "items": [asdict(item) | {"loss": item.loss} for item in items],
    }


def load_questions(path: Path | None = None) -> list[Question]:
    """Read general questions from JSONL, or the built-in ones.

    Raises:
        RunError: no such file, no questions in it, or rows that are not questions; names the rows.

    """
    if path is None:
        text = resources.files("dporun_trainer").joinpath("data/general_questions.jsonl").read_text(encoding="utf-8")
    else:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RunError(FailureReason.DATASET_INVALID, f"cannot read general questions: {error}") from error
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
            FailureReason.DATASET_INVALID,
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


def _prompt(question: Question, policy: Policy) -> list[int]:
    """Token ids of a question: as a chat message where the tokenizer has a template, else as question and answer."""
    if policy.tokenizer.chat_template:
        return encode_prompt([{"role": "user", "content": question.question}], policy.tokenizer)
    return encode_prompt(f"Question: {question.question}\nAnswer:", policy.tokenizer)


def _reference_ids(question: Question, policy: Policy) -> list[int]:
    text = question.answer if policy.tokenizer.chat_template else f" {question.answer}"
    return list(policy.tokenizer(text, add_special_tokens=False)["input_ids"])


def _category(items: Sequence[Item], category: str) -> Mapping[str, Any]:
    of_it = [item for item in items if item.category == category]
    return {
        "score": score(of_it),
        "questions": len(of_it),
        "base_right": sum(item.base_right for item in of_it),
        "tuned_right": sum(item.tuned_right for item in of_it),
    }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
