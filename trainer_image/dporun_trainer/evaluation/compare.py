"""Which of two answers is better, and why: by rules over their text, without a model as judge. Pure.

The tuned model's own rewards would favour its own answers, and another model is not at hand in an offline pod. The
data shows what people prefer, so an answer is as good as it is near to the chosen response and far from the rejected
one. That is coarse for one example and means something over many, as long as ties count as ties.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

CLEAR_DIFFERENCE = 0.05
"""Two answers whose preference differs by less than this are equally good."""
REPETITIVE = 0.5
"""An answer is repetitive when more than this share of it repeats earlier text."""

_WINDOW = 10
_SHORTEST_LOOP = 60
_CHRF_ORDER = 6
_CHRF_BETA = 2.0


class Better(StrEnum):
    """Which answer is better."""

    TUNED = "tuned"
    BASE = "base"
    TIE = "tie"


@dataclass(frozen=True)
class Comparison:
    """The judgement of one example.

    Attributes:
        better: which answer is better.
        why: the reason, one sentence.

    """

    better: Better
    why: str


def compare(*, base: str, tuned: str, chosen: str, rejected: str) -> Comparison:
    """Judge the two models' answers against the ground truth. The first rule that decides wins.

    1. An answer that is empty or repeats itself is worse than one that is not.
    2. The same answers are equally good.
    3. The better answer has the higher *preference*, chrF(answer, chosen) - chrF(answer, rejected), by at least
       CLEAR_DIFFERENCE; else they are equally good.
    """
    faults = {Better.BASE: fault(base, chosen), Better.TUNED: fault(tuned, chosen)}
    match faults[Better.BASE], faults[Better.TUNED]:
        case None, None:
            pass
        case None, what:
            return Comparison(Better.BASE, f"The tuned model's answer {what}, the base model's does not.")
        case what, None:
            return Comparison(Better.TUNED, f"The base model's answer {what}, the tuned model's does not.")
        case one, other:
            return Comparison(Better.TIE, f"The base model's answer {one}; the tuned model's {other}.")
    if base == tuned:
        return Comparison(Better.TIE, "Both answers are the same.")
    near = {"base": chrf(base, chosen), "tuned": chrf(tuned, chosen)}
    far = {"base": chrf(base, rejected), "tuned": chrf(tuned, rejected)}
    preference = {side: near[side] - far[side] for side in near}
    gain = preference["tuned"] - preference["base"]
    if abs(gain) < CLEAR_DIFFERENCE:
        values = f"tuned {preference['tuned']:+.2f}, base {preference['base']:+.2f}"
        return Comparison(
            Better.TIE, f"Both answers lean about as much to the chosen rather than the rejected response ({values})."
        )
    winner, loser = ("tuned", "base") if gain > 0 else ("base", "tuned")
    parts = []
    if near[winner] > near[loser]:
        parts.append(f"nearer to the chosen response (chrF {near[winner]:.2f}, the {loser} model's {near[loser]:.2f})")
    if far[winner] < far[loser]:
        parts.append(
            f"further from the rejected response (chrF {far[winner]:.2f}, the {loser} model's {far[loser]:.2f})"
        )
    return Comparison(Better(winner), f"The {winner} model's answer is {' and '.join(parts)}.")


def fault(answer: str, chosen: str) -> str | None:
    """Name the defect of an answer whatever its content: it is empty or loops, and ``chosen`` does not."""
    if not answer.strip() and chosen.strip():
        return "is empty"
    if repetition(answer) > REPETITIVE >= repetition(chosen):
        return "repeats itself"
    return None


def repetition(text: str) -> float:
    """Share of ``text`` that repeats earlier text, from 0 to 1, by windows of 10 characters; 0 for short texts."""
    if len(text) < _SHORTEST_LOOP:
        return 0.0
    windows = [text[start : start + _WINDOW] for start in range(len(text) - _WINDOW + 1)]
    return 1 - len(set(windows)) / len(windows)


def chrf(hypothesis: str, reference: str) -> float:
    """Character n-gram F-score, from 0 to 1, case and white space ignored; 1 for two empty texts.

    Popović 2015, "chrF: character n-gram F-score for automatic MT evaluation": n from 1 to 6, beta 2, orders that
    one of the texts is too short for left out.
    """
    one, other = ("".join(text.casefold().split()) for text in (hypothesis, reference))
    if not one or not other:
        return float(one == other)
    precisions, recalls = [], []
    for order in range(1, min(_CHRF_ORDER, len(one), len(other)) + 1):
        ours, theirs = _grams(one, order), _grams(other, order)
        common = (ours & theirs).total()
        precisions.append(common / ours.total())
        recalls.append(common / theirs.total())
    precision, recall = sum(precisions) / len(precisions), sum(recalls) / len(recalls)
    if precision + recall == 0:
        return 0.0
    weight = _CHRF_BETA**2
    return (1 + weight) * precision * recall / (weight * precision + recall)


def tally(comparisons: Sequence[Comparison]) -> dict[Better, int]:
    """Count the judgements."""
    counts = Counter(comparison.better for comparison in comparisons)
    return {better: counts[better] for better in Better}


def _grams(text: str, order: int) -> Counter[str]:
    return Counter(text[start : start + order] for start in range(len(text) - order + 1))
