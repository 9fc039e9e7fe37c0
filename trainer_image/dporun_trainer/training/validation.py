"""What a validation measures: of each row, and over all rows however they were divided. Pure.

TRL averages the means of batches, and repeats rows where those of a set do not fill the last batch of every process.
Here, every row of the set counts once: no number depends on the batch size or on the number of processes.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from dporun_trainer.objective import Objective, ScoredPair, mean, total


class ValidatedRow(NamedTuple):
    """What a validation measures of one row, a pair of responses."""

    pair: ScoredPair
    entropy: float
    """Of the policy's next token, summed over the tokens of both responses."""
    chosen_logits: float
    """Mean of the policy's logits over the vocabulary, summed over the tokens of the chosen response."""
    rejected_logits: float
    likeliest: float
    """Number of the chosen response's tokens that the policy finds likeliest of all."""

    @classmethod
    def of(cls, values: Sequence[float]) -> "ValidatedRow":
        """From ten numbers: those of the pair, then the others, each in the order of their fields."""
        chosen, rejected, ref_chosen, ref_rejected, chosen_tokens, rejected_tokens, *others = values
        pair = ScoredPair(chosen, rejected, ref_chosen, ref_rejected, int(chosen_tokens), int(rejected_tokens))
        return cls(pair, *others)


def metrics_of(rows: Sequence[ValidatedRow], objective: Objective) -> dict[str, float]:
    """Average a validation, under the names that TRL gives its metrics.

    Rewards, log-probabilities and accuracy are means over rows; entropy, logits and token accuracy means over tokens.
    A pair whose responses have the same reward counts as not accurate, as in TRL.
    """
    pairs = [row.pair for row in rows]
    rewards = [(objective.beta * pair.chosen_ratio, objective.beta * pair.rejected_ratio) for pair in pairs]
    chosen_tokens = sum(pair.chosen_tokens for pair in pairs)
    rejected_tokens = sum(pair.rejected_tokens for pair in pairs)
    return {
        "loss": objective.loss(pairs),
        "rewards/chosen": mean(chosen for chosen, _ in rewards),
        "rewards/rejected": mean(rejected for _, rejected in rewards),
        "rewards/accuracies": mean(float(chosen > rejected) for chosen, rejected in rewards),
        "rewards/margins": mean(chosen - rejected for chosen, rejected in rewards),
        "logps/chosen": mean(pair.chosen for pair in pairs),
        "logps/rejected": mean(pair.rejected for pair in pairs),
        "entropy": _per_token((row.entropy for row in rows), chosen_tokens + rejected_tokens),
        "logits/chosen": _per_token((row.chosen_logits for row in rows), chosen_tokens),
        "logits/rejected": _per_token((row.rejected_logits for row in rows), rejected_tokens),
        "mean_token_accuracy": _per_token((row.likeliest for row in rows), chosen_tokens),
    }


def _per_token(sums: Iterable[float], tokens: int) -> float:
    return total(sums) / tokens if tokens else 0.0
