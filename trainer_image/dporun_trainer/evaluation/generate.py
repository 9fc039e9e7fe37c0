"""Greedy answers of both models, in batches that give what one prompt at a time would."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from dporun_trainer.evaluation.batching import Models, OnProgress, in_batches
from dporun_trainer.evaluation.policy import Policy, Sides


@dataclass(frozen=True)
class Answer:
    """What a model generated.

    Attributes:
        text: decoded, without special tokens and surrounding white space.
        tokens: token ids, with EOS where the model ended itself.
        finished: False when the answer was cut at the longest length.

    """

    text: str
    tokens: tuple[int, ...]
    finished: bool


def answers_of_both(
    models: Models,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    batch_size: int = 8,
    on_progress: OnProgress | None = None,
) -> list[Sides[Answer]]:
    """Let the base and the tuned model answer every prompt, greedily.

    A prompt that leaves no room for ``max_new_tokens`` within the model's positions loses its beginning.

    Args:
        models: the two models.
        prompts: token ids, each ending where the answer begins.
        max_new_tokens: longest answer, in tokens.
        batch_size: prompts at a time.
        on_progress: called with the prompts answered.

    Returns:
        Both answers to each prompt, in order.

    """
    room = None if models.max_positions is None else max(1, models.max_positions - max_new_tokens)
    fitting = [tuple(prompt if room is None else prompt[-room:]) for prompt in prompts]
    answer = partial(_answer_both, max_new_tokens=max_new_tokens)
    return in_batches(models, answer, fitting, batch_size=batch_size, length=len, on_progress=on_progress)


def _answer_both(policy: Policy, batch: Sequence[Sequence[int]], *, max_new_tokens: int) -> list[Sides[Answer]]:
    return policy.on_both(lambda model: generate(model, policy.tokenizer, batch, max_new_tokens=max_new_tokens))


@torch.inference_mode()
def generate(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Sequence[int]], *, max_new_tokens: int
) -> list[Answer]:
    """Answer one batch of prompts, padded on the left to shape (batch, longest).

    Sampling and penalties that the model's own generation config asks for are off: the same weights give the same
    answers, and base and tuned model are compared on the same terms.
    """
    longest = max(1, *(len(prompt) for prompt in prompts))
    input_ids = torch.full((len(prompts), longest), tokenizer.pad_token_id or 0)
    attention_mask = torch.zeros_like(input_ids)
    for row, prompt in enumerate(prompts):
        if prompt:
            input_ids[row, -len(prompt) :] = torch.tensor(prompt)
            attention_mask[row, -len(prompt) :] = 1
    ends = end_tokens(model, tokenizer)
    greedy = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        num_beams=1,
        temperature=1.0,
        top_k=50,
        top_p=1.0,
        repetition_penalty=1.0,
        no_repeat_ngram_size=0,
        eos_token_id=sorted(ends),
        pad_token_id=tokenizer.pad_token_id,
    )
    output = model.generate(
        input_ids=input_ids.to(model.device), attention_mask=attention_mask.to(model.device), generation_config=greedy
    )
    return [_answer(tokens, tokenizer, ends) for tokens in output[:, longest:].tolist()]


def end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Token ids that end an answer: the tokenizer's EOS and those of the model's generation config."""
    configured = model.generation_config.eos_token_id
    ends = configured if isinstance(configured, list) else [configured]
    return frozenset(int(token) for token in (*ends, tokenizer.eos_token_id) if token is not None)


def _answer(tokens: list[int], tokenizer: PreTrainedTokenizerBase, ends: frozenset[int]) -> Answer:
    end = next((index for index, token in enumerate(tokens) if token in ends), None)
    kept = tuple(tokens if end is None else tokens[: end + 1])
    return Answer(str(tokenizer.decode(kept, skip_special_tokens=True)).strip(), kept, finished=end is not None)
