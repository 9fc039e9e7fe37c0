"""Log-probabilities and DPO rewards of responses, one number per example.

Tokens, end-of-sequence handling, boundary and truncation are those of TRL's DPOTrainer, so the numbers here are what
training optimised. Averages are left to the caller: a mean of batch means, which trainers log, depends on the batches.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from dporun_trainer.data.pairs import Pair, Text, common_prefix
from dporun_trainer.evaluation.batching import Models, OnProgress, in_batches
from dporun_trainer.evaluation.policy import Policy, Sides

_LOGITS_PER_SOFTMAX = 2**26
"""Logits turned into float32 at once (times 4 bytes: 256 MiB)."""


@dataclass(frozen=True)
class Tokens:
    """Token ids of a prompt and a response to it."""

    prompt: tuple[int, ...]
    completion: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.completion)


@dataclass(frozen=True)
class EncodedPair:
    """Token ids of a preference pair; the prompt is the same on both sides."""

    chosen: Tokens
    rejected: Tokens


@dataclass(frozen=True)
class LogProb:
    """Log-probability of a response: the sum over its tokens, in nats, and how many tokens those are."""

    total: float
    tokens: int

    @property
    def per_token(self) -> float:
        """Mean over the tokens, in nats; 0 for an empty response."""
        return self.total / self.tokens if self.tokens else 0.0


@dataclass(frozen=True)
class Reward:
    """DPO rewards of a preference pair, and the log-probabilities they come from."""

    chosen: float
    rejected: float
    chosen_logps: Sides[LogProb]
    rejected_logps: Sides[LogProb]

    @property
    def margin(self) -> float:
        """Chosen minus rejected."""
        return self.chosen - self.rejected


def encode_pair(pair: Pair, tokenizer: PreTrainedTokenizerBase, *, max_length: int | None) -> EncodedPair | None:
    """Turn a preference pair into token ids as TRL's DPOTrainer does.

    Text responses end with EOS, chat responses as the template ends them. A response begins where the tokens of
    prompt and prompt + response part. What is longer than ``max_length`` loses its end.
    (trl/trainer/dpo_trainer.py, ``_prepare_dataset`` and ``DataCollatorForPreference``.)

    Args:
        pair: text or messages.
        tokenizer: with a chat template when the pair is made of messages.
        max_length: longest prompt plus response, in tokens; None for no limit.

    Returns:
        The token ids, or None when the prompt alone fills ``max_length``: training drops such a pair.

    """
    prompt = encode_prompt(pair.prompt, tokenizer, pair.tools)
    whole = [_encode_with_response(pair, response, tokenizer) for response in (pair.chosen, pair.rejected)]
    start = min(common_prefix(prompt, ids) for ids in whole)
    if max_length is not None and start >= max_length:
        return None
    chosen, rejected = (Tokens(tuple(prompt[:start]), tuple(ids[start:max_length])) for ids in whole)
    return EncodedPair(chosen, rejected)


def encode_prompt(prompt: Text, tokenizer: PreTrainedTokenizerBase, tools: Sequence[dict[str, Any]] = ()) -> list[int]:
    """Token ids of a prompt, with the tools that it may use, as the model sees it before it answers."""
    if isinstance(prompt, str):
        return list(tokenizer(prompt)["input_ids"])
    return _apply_template(tokenizer, prompt, tools, add_generation_prompt=True)


def rewards(
    models: Models,
    pairs: Sequence[EncodedPair],
    *,
    beta: float,
    batch_size: int = 8,
    on_progress: OnProgress | None = None,
) -> list[Reward]:
    """Implicit DPO rewards of both responses of every pair.

    ``beta * (log p_tuned(response | prompt) - log p_base(response | prompt))``, summed over the response's tokens:
    Rafailov et al. 2023, "Direct Preference Optimization", section 5 (without the term that depends on the prompt
    alone, which cancels in every comparison).

    Args:
        models: the tuned model and its base.
        pairs: what to score.
        beta: the run's beta.
        batch_size: pairs at a time.
        on_progress: called with the pairs scored.

    Returns:
        One Reward per pair, in order.

    """
    sequences = [side for pair in pairs for side in (pair.chosen, pair.rejected)]
    scored = logps_of_both(models, sequences, batch_size=2 * batch_size, on_progress=_in_pairs(on_progress))
    values = [beta * (tuned.total - base.total) for base, tuned in scored]
    return [
        Reward(values[i], values[i + 1], chosen_logps=scored[i], rejected_logps=scored[i + 1])
        for i in range(0, len(scored), 2)
    ]


def logps_of_both(
    models: Models, sequences: Sequence[Tokens], *, batch_size: int, on_progress: OnProgress | None = None
) -> list[Sides[LogProb]]:
    """Log-probabilities of all responses under the base and the tuned model."""
    return in_batches(models, _score, sequences, batch_size=batch_size, length=len, on_progress=on_progress)


def _score(policy: Policy, batch: Sequence[Tokens]) -> list[Sides[LogProb]]:
    padding = policy.tokenizer.pad_token_id or 0
    return policy.on_both(lambda model: completion_logps(model, batch, pad_token_id=padding))


@torch.inference_mode()
def completion_logps(model: PreTrainedModel, batch: Sequence[Tokens], *, pad_token_id: int) -> list[LogProb]:
    """Log-probabilities of the responses of one batch.

    Sequences are padded on the right to shape (batch, longest); logits are computed at the positions that predict a
    response's token and nowhere else, shape (response tokens of the batch, vocabulary). Softmax and sums are in
    float32 and float64 whatever the model's dtype.
    """
    longest = max(len(tokens) for tokens in batch)
    input_ids = torch.full((len(batch), longest), pad_token_id)
    attention_mask = torch.zeros_like(input_ids)
    predicts = torch.zeros_like(input_ids, dtype=torch.bool)
    for row, tokens in enumerate(batch):
        input_ids[row, : len(tokens)] = torch.tensor(tokens.prompt + tokens.completion)
        attention_mask[row, : len(tokens)] = 1
        predicts[row, max(len(tokens.prompt) - 1, 0) : len(tokens) - 1] = True
    device = model.device
    targets = input_ids.roll(-1, dims=1)[predicts].to(device)
    if targets.numel():
        logits = model(
            input_ids=input_ids.to(device),
            attention_mask=attention_mask.to(device),
            logits_to_keep=predicts.to(device),
            use_cache=False,
        ).logits
        if logits.dim() == 3:  # a model that computes all of them, as Qwen2-Audio does
            logits = logits[predicts.to(device)]
        per_token = _token_logps(logits, targets).double().cpu()
    else:
        per_token = torch.zeros(0, dtype=torch.float64)
    counts = predicts.sum(dim=1).tolist()
    return [
        LogProb(float(part.sum()), count) for part, count in zip(torch.split(per_token, counts), counts, strict=True)
    ]


def _token_logps(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Log-softmax of ``logits`` (tokens, vocabulary) at ``targets`` (tokens,), in float32, a few rows at a time."""
    rows = max(1, _LOGITS_PER_SOFTMAX // logits.shape[-1])
    parts = zip(torch.split(logits, rows), torch.split(targets, rows), strict=True)
    return torch.cat([-cross_entropy(part.float(), target, reduction="none") for part, target in parts])


def _encode_with_response(pair: Pair, response: Text, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    prompt = pair.prompt
    if isinstance(prompt, str) and isinstance(response, str):
        end = tokenizer.eos_token or ""
        return list(tokenizer(prompt + response + ("" if response.endswith(end) else end))["input_ids"])
    return _apply_template(tokenizer, [*prompt, *response], pair.tools)


def _apply_template(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Any], tools: Sequence[dict[str, Any]], **arguments: Any
) -> list[int]:
    shown = list(tools) or None
    encoded = tokenizer.apply_chat_template(list(messages), tools=shown, tokenize=True, return_dict=True, **arguments)
    return list(encoded["input_ids"])


def _in_pairs(on_progress: OnProgress | None) -> OnProgress | None:
    """Progress in pairs, of progress in their sequences."""
    if on_progress is None:
        return None
    return lambda done, total: on_progress(done // 2, total // 2)
