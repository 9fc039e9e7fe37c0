"""What to change about a data set, or about the run that is to use it. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass

from dporun_api.dataset_report import DataFacts, DatasetReport, DropReason
from dporun_trainer.reporting.dataset_words import sources
from dporun_trainer.reporting.numbers import percent

SHARE_CUT = 0.05
"""From this share of cut pairs on, a longer maxLength is worth its memory."""


@dataclass(frozen=True)
class Remedy:
    """A field of the manifest (or another thing) to change, and why."""

    change: str
    reason: str


def remedies(report: DatasetReport) -> Iterator[Remedy]:
    """What to change, the most useful first; a policy that has already dropped such rows is not proposed again."""
    sides = [source.facts for source in sources(report).values()]
    dropped = {reason for side in sides for reason, count in side.dropped.items() if count}
    if DropReason.INVALID in dropped and report.refused is None:
        yield Remedy("the rows left out", "Correct them, or take them out; they are listed with what is wrong.")
    leaks = report.leaked_prompts + report.near_leaked_prompts
    if leaks and DropReason.LEAK not in dropped:
        yield Remedy(
            "dataset.leaks to Drop",
            f"{_count(leaks, 'prompt')} of validation {_are(leaks)} in the training data, or nearly, so that "
            "validation looks better than it is. Drop takes them out of training.",
        )
    contradictions = sum(side.contradictions for side in sides)
    if contradictions and DropReason.CONTRADICTION not in dropped:
        yield Remedy(
            "dataset.contradictions to Drop",
            f"{_count(contradictions, 'pair')} {_are(contradictions)} there in both orders: they teach the opposite of "
            "each other. Drop uses neither.",
        )
    yield from _longer(report, sides)
    repeated = sum(side.duplicates + side.near_duplicates for side in sides)
    if repeated and not dropped & {DropReason.DUPLICATE, DropReason.NEAR_DUPLICATE}:
        yield Remedy(
            "dataset.duplicates to Drop",
            f"{_count(repeated, 'pair')} {'repeats' if repeated == 1 else 'repeat'} an earlier one, or nearly: their "
            "weight is larger than you may mean. Drop uses the first one.",
        )
    if any(warning.startswith("length bias") for warning in report.warnings):
        yield Remedy(
            "the pairs, or dpo.loss to [sigmoid_norm]",
            "Add pairs whose better answer is not the longer one (or shorter one). sigmoid_norm compares the mean "
            "log-probability of a token, so that length alone wins nothing.",
        )


def _longer(report: DatasetReport, sides: list[DataFacts]) -> Iterator[Remedy]:
    cut = sum(side.truncated + side.dropped.get(DropReason.OVERLONG, 0) for side in sides)
    every = sum(side.pairs or side.rows for side in sides)
    totals = [side.total for side in sides if side.total]
    if report.max_length and totals and cut >= SHARE_CUT * every:
        needed = max(lengths.p99 for lengths in totals)
        proposed = -(-needed // 256) * 256
        yield Remedy(
            f"dpo.maxLength {report.max_length} → {proposed}",
            f"{percent(cut / every)} of the pairs are cut or left out. {proposed:,} tokens hold 99 % of them whole, "
            "and take more memory.",
        )


def _count(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"
