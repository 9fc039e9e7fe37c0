"""How much a number shows: intervals of shares, the sign test, and how many examples would decide. Pure.

Everything is at 95 % and two-sided, as is usual, unless an argument says otherwise.
"""

import math
from enum import StrEnum
from statistics import NormalDist

LEVEL = 0.05
"""Chance that is accepted of seeing a difference where there is none."""
Z = NormalDist().inv_cdf(1 - LEVEL / 2)
MOST = 1_000_000
"""No number of examples is said beyond this one."""
NOTICEABLE_WITHIN = 200
"""A lead is noticeable when that many answers would show it: as many as a run compares by default."""
FEWEST = 16
"""So many examples are the least that a judgement rests on: all of 15 right is still no sign of more than 80 %."""


class Lead(StrEnum):
    """How the tuned model's answers stand to the base model's."""

    BETTER = "better"
    WORSE = "worse"
    NONE = "none"
    UNCLEAR = "unclear"


def wilson(share: float, count: int) -> tuple[float, float]:
    """95 % score interval of a share of ``count`` examples; everything from 0 to 1 when there are none.

    Wilson 1927, "Probable Inference, the Law of Succession, and Statistical Inference". Unlike a bootstrap it is not
    empty for 0 and 1. ``share`` may lie between the multiples of 1 / count.
    """
    if count == 0:
        return 0.0, 1.0
    weight = Z**2 / count
    centre = share + weight / 2
    half = Z * math.sqrt(share * (1 - share) / count + weight / (4 * count))
    low, high = (centre - half) / (1 + weight), (centre + half) / (1 + weight)
    return 0.0 if share == 0 else low, 1.0 if share == 1 else high


def count_for_share(share: float, limit: float) -> int:
    """Smallest number of examples for which the interval of ``share`` does not hold ``limit``; MOST at the most.

    It is the score test turned round: the interval holds the limit while (share - limit)² <= Z² limit (1 - limit) / n.
    """
    spread, distance = Z**2 * limit * (1 - limit), (share - limit) ** 2
    return math.floor(spread / distance) + 1 if spread < distance * MOST else MOST


def count_for_mean(mean: float, limit: float, interval: tuple[float, float], count: int) -> int:
    """About how many examples an interval of the mean needs not to hold ``limit``; MOST at the most.

    An interval of ``count`` examples shrinks with the root of their number.
    """
    end = interval[0] if mean > limit else interval[1]
    spread, distance = count * (mean - end) ** 2, (mean - limit) ** 2
    return math.floor(spread / distance) + 1 if spread < distance * MOST else MOST


def sign_test(wins: int, losses: int) -> float:
    """Two-sided p-value of the sign test: how likely so uneven a result is when neither side is better.

    Exact, from the binomial distribution with p = 1/2; ties are left out. 1 without wins and losses.
    """
    games = wins + losses
    tail = sum(
        math.exp(math.lgamma(games + 1) - math.lgamma(k + 1) - math.lgamma(games - k + 1) - games * math.log(2))
        for k in range(min(wins, losses) + 1)
    )
    return min(1.0, 2 * tail)


def lead(better: int, worse: int, equal: int, level: float = LEVEL) -> Lead:
    """Judge counts of answers by the sign test at ``level``.

    A difference that is not significant is none, as long as a noticeable one would have been seen. It is unclear where
    fewer than FEWEST answers were compared, or where NOTICEABLE_WITHIN answers would show the lead, were the counts in
    the same proportion.
    """
    if better != worse and sign_test(better, worse) <= level:
        return Lead.BETTER if better > worse else Lead.WORSE
    few = better + worse + equal < FEWEST
    return Lead.UNCLEAR if few or count_for_lead(better, worse, equal, level) <= NOTICEABLE_WITHIN else Lead.NONE


def count_for_lead(better: int, worse: int, equal: int, level: float = LEVEL) -> int:
    """Number of answers at which these proportions would be significant; MOST at the most, and without a lead.

    By the normal approximation with continuity correction: n answers decide when
    lead · n - 1 >= z · sqrt(decided · n), with lead and decided as shares of the answers.
    """
    compared, ahead = better + worse + equal, better - worse
    if ahead <= 0:
        return MOST
    share, z = ahead / compared, NormalDist().inv_cdf(1 - level / 2)
    spread = z * math.sqrt((better + worse) / compared)
    root = (spread + math.sqrt(spread**2 + 4 * share)) / (2 * share)
    return min(MOST, math.ceil(root**2))


def count_to_tell(better: int, worse: int, equal: int, level: float = LEVEL) -> int:
    """Number of answers at which ``lead`` is not unclear any more, were the counts in the same proportion."""
    needed = count_for_lead(better, worse, equal, level)
    return needed if needed <= NOTICEABLE_WITHIN else FEWEST
