"""Evaluate a tuned model on preference pairs: rewards of every pair, and answers of base and tuned side by side."""

import json
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer.data.pairs import Message, Pair, Text
from dporun_trainer.errors import RunError
from dporun_trainer.evaluation.batching import Models, OnStage, stage
from dporun_trainer.evaluation.compare import Better, Comparison, compare, tally
from dporun_trainer.evaluation.generate import Answer, answers_of_both
from dporun_trainer.evaluation.policy import Sides
from dporun_trainer.evaluation.scoring import LogProb, Reward, encode_pair, encode_prompt, rewards
from dporun_trainer.run_folder.records import ComparedExample, ComparisonRecord, EvaluationRecord, Rewards
from dporun_trainer.significance import FEWEST, Lead, lead, sign_test, wilson

log = logging.getLogger(__name__)

PAIRS_AT_ONCE = 8
"""Pairs that are scored at a time: 16 sequences keep a GPU busy, and their logits are large."""
RESAMPLES = 2000
SEED = 0
_INDICES_AT_ONCE = 2**20


@dataclass(frozen=True)
class Options:
    """How to evaluate.

    Attributes:
        beta: the run's DPO beta; rewards are proportional to it.
        max_length: longest prompt plus response, in tokens; longer responses are cut as in training.
        max_examples: at most this many examples get generated answers, spread evenly over the data.
        max_new_tokens: longest generated answer, in tokens.
        batch_size: pairs (or prompts) at a time; by default PAIRS_AT_ONCE, and as many prompts as fit. In float32 the
            numbers do not depend on it; in bf16 and fp16 they do by their rounding, which is why base and tuned model
            always get the same batch.

    """

    beta: float = 0.1
    max_length: int | None = 1024
    max_examples: int = 200
    max_new_tokens: int = 128
    batch_size: int | None = None

    @property
    def pairs_at_once(self) -> int:
        """How many pairs are scored at a time."""
        return self.batch_size or PAIRS_AT_ONCE


@dataclass(frozen=True)
class Example:
    """One pair of the test data with all that was found out about it.

    Attributes:
        index: 0-based position in the data.
        pair: prompt and responses.
        reward: of both responses.
        answers: what base and tuned model answer; None beyond max_examples.
        comparison: which answer is better; None without answers.

    """

    index: int
    pair: Pair
    reward: Reward
    answers: Sides[Answer] | None = None
    comparison: Comparison | None = None


def evaluate(models: Models, pairs: Sequence[Pair], options: Options, on_stage: OnStage | None = None) -> list[Example]:
    """Score every pair and let both models answer up to ``options.max_examples`` of the prompts.

    Args:
        models: the tuned model and its base.
        pairs: the test data; pairs whose prompt alone fills max_length are left out, as in training.
        options: lengths, number of examples and batch size.
        on_stage: called with the progress of each stage.

    Raises:
        RunError: no pair is left, a reward is not a number, or one example does not fit into the GPU's memory.

    """
    limits = [limit for limit in (options.max_length, models.max_positions) if limit is not None]
    encoded = [encode_pair(pair, models.tokenizer, max_length=min(limits, default=None)) for pair in pairs]
    kept = [(index, tokens) for index, tokens in enumerate(encoded) if tokens is not None]
    if not kept:
        why = f"in all {len(pairs)} the prompt alone has {min(limits)} tokens or more" if pairs else "there are none"
        raise RunError(Reason.DATASET_INVALID, f"no preference pairs to evaluate: {why}")
    if len(kept) < len(pairs):
        log.warning("%d of %d pairs left out: the prompt alone fills max_length", len(pairs) - len(kept), len(pairs))
    scored = rewards(
        models,
        [tokens for _, tokens in kept],
        beta=options.beta,
        batch_size=options.pairs_at_once,
        on_progress=stage(on_stage, "scoring"),
    )
    examples = [Example(index, pairs[index], reward) for (index, _), reward in zip(kept, scored, strict=True)]
    for example in examples:
        if not math.isfinite(example.reward.margin):
            raise RunError(
                Reason.NON_FINITE_LOSS,
                f"the reward of example {example.index + 1} is not a number: the model's weights are broken",
                hint="Train with a lower learning rate, or in bf16 instead of fp16.",
            )
    return _with_answers(models, examples, options, on_stage)


def _with_answers(models: Models, examples: list[Example], options: Options, on_stage: OnStage | None) -> list[Example]:
    positions = spread(len(examples), options.max_examples)
    answers = answers_of_both(
        models,
        [
            encode_prompt(examples[position].pair.prompt, models.tokenizer, examples[position].pair.tools)
            for position in positions
        ],
        max_new_tokens=options.max_new_tokens,
        batch_size=options.batch_size,
        on_progress=stage(on_stage, "generating"),
    )
    answered = list(examples)
    for position, both in zip(positions, answers, strict=True):
        example = examples[position]
        comparison = compare(
            base=both.base.text,
            tuned=both.tuned.text,
            chosen=as_text(example.pair.chosen),
            rejected=as_text(example.pair.rejected),
        )
        answered[position] = replace(example, answers=both, comparison=comparison)
    return answered


def metrics(examples: Sequence[Example], *, pairs: int, beta: float) -> EvaluationRecord:
    """Put the numbers of ``evaluation_metrics.json`` together: means over examples, never over batches.

    Accuracy is the share of pairs whose chosen response has the strictly higher reward; ties are counted apart. Its
    interval is Wilson's; that of the margin is a seeded bootstrap over examples, and absent below FEWEST of them: so
    few do not show how their margins are spread. The logps accuracies are how often a model alone finds the chosen
    response more likely: the base's is where the run started. ``better_than_base`` means that more generated answers
    are better than worse, and significantly so by the sign test, whose p-value is ``better_p_value``.

    Args:
        examples: what ``evaluate`` found.
        pairs: how many it was given, those left out included.
        beta: that the rewards were computed with.

    """
    chosen = np.array([example.reward.chosen for example in examples])
    rejected = np.array([example.reward.rejected for example in examples])
    margins = chosen - rejected
    correct = margins > 0
    accuracy = float(correct.mean())
    accuracy_low, accuracy_high = wilson(accuracy, len(examples))
    margin_low, margin_high = bootstrap_interval(margins) if len(examples) >= FEWEST else (None, None)
    counts = tally([example.comparison for example in examples if example.comparison is not None])
    better, worse, equal = counts[Better.TUNED], counts[Better.BASE], counts[Better.TIE]
    compared = better + worse + equal
    return EvaluationRecord(
        accuracy=accuracy,
        avg_chosen_reward=float(chosen.mean()),
        avg_rejected_reward=float(rejected.mean()),
        reward_margin=float(margins.mean()),
        accuracy_low=accuracy_low,
        accuracy_high=accuracy_high,
        reward_margin_low=margin_low,
        reward_margin_high=margin_high,
        ties=int((margins == 0).sum()),
        examples=len(examples),
        skipped=pairs - len(examples),
        beta=beta,
        base_logps_accuracy=_logps_accuracy(examples, lambda logps: logps.base),
        tuned_logps_accuracy=_logps_accuracy(examples, lambda logps: logps.tuned),
        compared=compared,
        better=better,
        worse=worse,
        equal=equal,
        better_than_base=lead(better, worse, equal) is Lead.BETTER if compared else None,
        better_p_value=sign_test(better, worse) if compared else None,
        forgetting=None,
    )


def side_by_side(examples: Sequence[Example], numbers: EvaluationRecord) -> ComparisonRecord:
    """Put ``comparison_results.json`` together: a summary, and the test examples side by side.

    ``base`` and ``tuned`` are the models' answers, ``chosen`` is the ground truth. Examples beyond max_examples have
    rewards and no answers.
    """
    return ComparisonRecord(summary=numbers.answers(), examples=tuple(map(_compared, examples)))


def bootstrap_interval(values: Sequence[float] | np.ndarray[Any, Any]) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the mean of ``values``, from RESAMPLES seeded resamples.

    Efron 1979, "Bootstrap Methods: Another Look at the Jackknife". The same values in any order give the same interval.
    """
    sample = np.sort(np.asarray(values, dtype=np.float64))
    random = np.random.default_rng(SEED)
    at_once = max(1, _INDICES_AT_ONCE // len(sample))
    means = np.concatenate(
        [
            sample[random.integers(0, len(sample), (min(at_once, RESAMPLES - done), len(sample)))].mean(axis=1)
            for done in range(0, RESAMPLES, at_once)
        ]
    )
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def spread(count: int, at_most: int) -> list[int]:
    """Choose up to ``at_most`` of ``count`` positions, evenly spaced: data in some order is seen from all parts."""
    chosen = min(count, at_most)
    return [position * count // chosen for position in range(chosen)]


def as_text(content: Text) -> str:
    """Text of a prompt or response for people: one message's content alone, several with their roles."""
    if isinstance(content, str):
        return content
    if len(content) == 1:
        return _said(content[0])
    return "\n".join(f"{message['role']}: {_said(message)}" for message in content)


def _said(message: Message) -> str:
    calls = [f"{call['function']['name']}({json.dumps(call['function']['arguments'], ensure_ascii=False)})"
             for call in message.get("tool_calls", ())]  # fmt: skip
    return "\n".join(filter(None, (message["content"], *calls)))


def _logps_accuracy(examples: Sequence[Example], side: Callable[[Sides[LogProb]], LogProb]) -> float:
    found = [side(e.reward.chosen_logps).total > side(e.reward.rejected_logps).total for e in examples]
    return sum(found) / len(found)


def _compared(example: Example) -> ComparedExample:
    reward, answers, comparison = example.reward, example.answers, example.comparison
    return ComparedExample(
        index=example.index,
        prompt=as_text(example.pair.prompt),
        chosen=as_text(example.pair.chosen),
        rejected=as_text(example.pair.rejected),
        base=answers and answers.base.text,
        tuned=answers and answers.tuned.text,
        better=comparison and comparison.better,
        why=comparison and comparison.why,
        rewards=Rewards(chosen=reward.chosen, rejected=reward.rejected, margin=reward.margin),
        logps_per_token={
            "chosen": {"base": reward.chosen_logps.base.per_token, "tuned": reward.chosen_logps.tuned.per_token},
            "rejected": {"base": reward.rejected_logps.base.per_token, "tuned": reward.rejected_logps.tuned.per_token},
        },
    )
