"""Greedy answers of both models, in batches that give what one prompt at a time would (but for rounding)."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from transformers import DynamicCache, GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase, StoppingCriteria
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from dporun_trainer.evaluation.batching import Models, OnProgress, in_batches
from dporun_trainer.evaluation.policy import Policy, Sides

CACHES_OF_THEIR_OWN = frozenset({"minimax", "reformer", "rwkv", "xlnet", "xlstm"})
"""Model types whose cache is no DynamicCache."""


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
    batch_size: int | None = None,
    on_progress: OnProgress | None = None,
) -> list[Sides[Answer]]:
    """Let the base and the tuned model answer every prompt, greedily.

    A prompt that leaves no room for ``max_new_tokens`` within the model's positions loses its beginning.

    Args:
        models: the two models.
        prompts: token ids, each ending where the answer begins.
        max_new_tokens: longest answer, in tokens.
        batch_size: prompts at a time; by default as many as fit.
        on_progress: called with the prompts answered.

    Returns:
        Both answers to each prompt, in order.

    """
    room = None if models.max_positions is None else max(1, models.max_positions - max_new_tokens)
    fitting = [tuple(prompt if room is None else prompt[-room:]) for prompt in prompts]
    longest = max(map(len, fitting), default=0) + max_new_tokens
    batch_size = batch_size or models.answers_at_once(longest)
    answer = partial(_answer_both, max_new_tokens=max_new_tokens)
    return in_batches(models, answer, fitting, batch_size=batch_size, length=len, on_progress=on_progress)


def _answer_both(policy: Policy, batch: Sequence[Sequence[int]], *, max_new_tokens: int) -> list[Sides[Answer]]:
    return policy.on_both(lambda model: generate(model, policy.tokenizer, batch, max_new_tokens=max_new_tokens))


@torch.inference_mode()
def generate(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Sequence[int]], *, max_new_tokens: int
) -> list[Answer]:
    """Answer one batch of prompts, padded on the left to shape (batch, longest).

    When half of the answers have ended, their rows leave the batch and the others go on, with the keys and values
    computed so far.
    """
    longest = max(1, *(len(prompt) for prompt in prompts))
    ids = torch.full((len(prompts), longest), tokenizer.pad_token_id or 0)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        if prompt:
            ids[row, -len(prompt) :] = torch.tensor(prompt)
            mask[row, -len(prompt) :] = 1
    ids, mask = ids.to(model.device), mask.to(model.device)
    ends = end_tokens(model, tokenizer)
    said: list[list[int]] = [[] for _ in prompts]
    rows, left, cache = list(range(len(prompts))), max_new_tokens, _divisible_cache(model)
    while rows and left > 0:
        going_on = (
            {} if cache is None else {"past_key_values": cache, "stopping_criteria": [_HalfHaveEnded(ends, ids.device)]}
        )
        config = _greedy(left, ends, tokenizer.pad_token_id)
        output = model.generate(input_ids=ids, attention_mask=mask, generation_config=config, **going_on)
        new = output[:, ids.shape[1] :]
        left = left - new.shape[1] if cache is not None else 0
        unfinished = []
        for position, tokens in enumerate(new.tolist()):
            said[rows[position]] += tokens
            if ends.isdisjoint(tokens):
                unfinished.append(position)
        rows = [rows[position] for position in unfinished]
        if cache is not None:
            kept = torch.tensor(unfinished, dtype=torch.long, device=ids.device)
            cache.batch_select_indices(kept)
            ids, mask = output[kept], torch.cat([mask, torch.ones_like(new)], dim=1)[kept]
    return [_answer(tokens, tokenizer, ends) for tokens in said]


class _HalfHaveEnded(StoppingCriteria):
    """Stops all rows of a batch once half of them have said one of ``ends``."""

    def __init__(self, ends: frozenset[int], device: torch.device):
        self._ends = torch.tensor(sorted(ends), device=device)
        self._ended: torch.Tensor | None = None

    def __call__(self, input_ids: torch.Tensor, scores: object, **_: object) -> torch.Tensor:  # noqa: ARG002  its interface
        said = torch.isin(input_ids[:, -1], self._ends)
        self._ended = said if self._ended is None else self._ended | said
        return (2 * self._ended.sum() >= len(said)).expand(len(said))


def _divisible_cache(model: PreTrainedModel) -> DynamicCache | None:
    """Make an empty cache that rows can be taken out of.

    None where the model keeps more than keys and values, such as a state, or counts positions for images as well.
    """
    config = model.config
    if config.get_text_config() is not config or config.model_type in CACHES_OF_THEIR_OWN:
        return None
    cache = DynamicCache(config=config)
    divisible = all(type(layer) in {DynamicLayer, DynamicSlidingWindowLayer} for layer in cache.layers)
    return cache if divisible else None


def _greedy(max_new_tokens: int, ends: frozenset[int], padding: int | None) -> GenerationConfig:
    """Greedy decoding, with the sampling and penalties off that the model's own generation config asks for.

    The same weights give the same answers, and base and tuned model are compared on the same terms.
    """
    return GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        num_beams=1,
        temperature=1.0,
        top_k=50,
        top_p=1.0,
        repetition_penalty=1.0,
        no_repeat_ngram_size=0,
        eos_token_id=sorted(ends),
        pad_token_id=padding,
    )


def end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Token ids that end an answer: the tokenizer's EOS and those of the model's generation config."""
    configured = model.generation_config.eos_token_id
    ends = configured if isinstance(configured, list) else [configured]
    return frozenset(int(token) for token in (*ends, tokenizer.eos_token_id) if token is not None)


def _answer(tokens: list[int], tokenizer: PreTrainedTokenizerBase, ends: frozenset[int]) -> Answer:
    end = next((index for index, token in enumerate(tokens) if token in ends), None)
    kept = tuple(tokens if end is None else tokens[: end + 1])
    return Answer(str(tokenizer.decode(kept, skip_special_tokens=True)).strip(), kept, finished=end is not None)
