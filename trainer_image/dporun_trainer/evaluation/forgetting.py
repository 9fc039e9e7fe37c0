"""How much general knowledge a tuned model has lost against its base: catastrophic forgetting, measured offline."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from dporun_trainer.data.questions import Question
from dporun_trainer.evaluation.batching import Models, OnStage, stage
from dporun_trainer.evaluation.generate import answers_of_both
from dporun_trainer.evaluation.scoring import Tokens, encode_prompt, logps_of_both
from dporun_trainer.run_folder.records import AskedQuestion, CategoryScore, ForgettingRecord

MAX_NEW_TOKENS = 48
"""Longest answer to a general question, in tokens."""
SCORED_AT_ONCE = 16
"""Answers to general questions that are scored at a time."""
WORST = 10


@dataclass(frozen=True)
class Item:
    """What one question showed.

    Attributes:
        question: as asked.
        answer: the reference answer.
        category: of the question.
        base: the base model's answer.
        tuned: the tuned model's answer.
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

    A base model that answers well is judged by answers; one that answers nothing correctly by the likelihood of the
    reference answers, so the score exists for weak models, too. It never falls when an answer gets worse or less
    likely; what was learned anew makes up for nothing. Drift from the base model's wording is reported and not
    counted: a tuned model is meant to speak differently, not to know less.
    """
    known = sum(item.weight for item in items)
    return sum(item.weight * item.loss for item in items) / known if known > 0 else 0.0


def measure(
    models: Models,
    questions: Sequence[Question],
    *,
    batch_size: int | None = None,
    max_new_tokens: int = MAX_NEW_TOKENS,
    on_stage: OnStage | None = None,
) -> list[Item]:
    """Ask both models every question.

    Args:
        models: the tuned model and its base.
        questions: what to ask.
        batch_size: questions at a time; by default as many as fit.
        max_new_tokens: longest answer, in tokens.
        on_stage: called with the progress of each stage.

    Raises:
        RunError: one question does not fit into the GPU's memory.

    """
    asked = [_prompt(question, models) for question in questions]
    answers = answers_of_both(
        models,
        asked,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        on_progress=stage(on_stage, "asking general questions"),
    )
    references = [
        Tokens(tuple(prompt), tuple(_reference_ids(question, models)))
        for prompt, question in zip(asked, questions, strict=True)
    ]
    own_answers = [Tokens(tuple(prompt), both.base.tokens) for prompt, both in zip(asked, answers, strict=True)]
    scored = logps_of_both(
        models,
        [*references, *own_answers],
        batch_size=batch_size or SCORED_AT_ONCE,
        on_progress=stage(on_stage, "scoring general answers", per_item=2),
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


def results(items: Sequence[Item]) -> ForgettingRecord:
    """Put ``forgetting.json`` together: the score, what it is made of, and the worst examples first."""
    lost = [item for item in items if item.base_right and not item.tuned_right]
    worst = sorted(items, key=lambda item: (-item.weight * item.loss, -item.drift))
    return ForgettingRecord(
        score=score(items),
        questions=len(items),
        base_right=sum(item.base_right for item in items),
        tuned_right=sum(item.tuned_right for item in items),
        lost=len(lost),
        gained=sum(item.tuned_right and not item.base_right for item in items),
        base_nll=_mean([item.base_nll for item in items]),
        tuned_nll=_mean([item.tuned_nll for item in items]),
        drift=_mean([item.drift for item in items]),
        categories={category: _category(items, category) for category in sorted({i.category for i in items})},
        worst=tuple(_asked(item) for item in worst[:WORST] if item.weight * item.loss > 0),
        items=tuple(map(_asked, items)),
    )


def _asked(item: Item) -> AskedQuestion:
    return AskedQuestion(**asdict(item), loss=item.loss)


def _prompt(question: Question, models: Models) -> list[int]:
    """Token ids of a question: as a chat message where the tokenizer has a template, else as question and answer."""
    if models.tokenizer.chat_template:
        return encode_prompt([{"role": "user", "content": question.question}], models.tokenizer)
    return encode_prompt(f"Question: {question.question}\nAnswer:", models.tokenizer)


def _reference_ids(question: Question, models: Models) -> list[int]:
    text = question.answer if models.tokenizer.chat_template else f" {question.answer}"
    return list(models.tokenizer(text, add_special_tokens=False)["input_ids"])


def _category(items: Sequence[Item], category: str) -> CategoryScore:
    of_it = [item for item in items if item.category == category]
    return CategoryScore(
        score=score(of_it),
        questions=len(of_it),
        base_right=sum(item.base_right for item in of_it),
        tuned_right=sum(item.tuned_right for item in of_it),
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
