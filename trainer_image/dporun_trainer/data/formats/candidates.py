"""Several responses to one prompt with a score or a rank each: pairs of a better and a worse one."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dporun_api.row_formats import CandidatePairs, Candidates
from dporun_trainer.data.columns import CANDIDATE_RANKS, CANDIDATE_SCORES, CANDIDATES
from dporun_trainer.data.formats import transcript
from dporun_trainer.data.formats.assemble import assemble, number
from dporun_trainer.data.formats.messages import answer, messages, text, text_or_messages, user
from dporun_trainer.data.pairs import Message, Pair, RowError, RowSkipped
from dporun_trainer.data.rows import Row

_TEXTS = ("response", "completion", "answer", "text", "content", "output")
_SCORES = ("score", "overall_score", "rating", "reward")
_BLANK = "candidates without a word, which are left out"
_PROMPTS = ("prompt", "instruction", "question", "messages", "conversations")


@dataclass(frozen=True)
class _Candidate:
    """A response, and how good it is; more is better, and a rank counts downwards."""

    response: str
    worth: float
    score: float | None


def is_candidates(columns: Mapping[str, Any]) -> bool:
    """Whether there are several responses, and something that orders them."""
    name = _first(columns, CANDIDATES)
    if name is None or "chosen" in columns:
        return False
    items = columns[name]
    if not isinstance(items, list) or not items:
        return False
    if all(isinstance(item, dict) for item in items):
        return any(key in item for item in items for key in ("rank", *_SCORES))
    return (
        all(isinstance(item, str) for item in items) and _first(columns, CANDIDATE_SCORES + CANDIDATE_RANKS) is not None
    )


def from_candidates(row: Row, wanted: Candidates) -> list[Pair]:
    """Pair candidates: the best with the worst, or every two that are far enough apart.

    Raises:
        RowSkipped: none is better than another, or none by enough.
        RowError: there are no candidates that can be compared.

    """
    given, blank = _candidates(row.columns)
    found = sorted(given, key=lambda candidate: -candidate.worth)
    if len(found) < 2:
        raise RowError("fewer than two candidates with a text and a score or a rank")
    chosen = [pair for pair in itertools.combinations(found, 2) if _apart(*pair, wanted.min_margin)]
    if wanted.pairs is CandidatePairs.BEST_WORST:
        # The best one comes first; the last one that it is paired with is the worst that says something else.
        chosen = [pair for pair in chosen if pair[0] is found[0]][-1:]
    if not chosen:
        raise RowSkipped("candidates of which none is better than another, or not by dataset.candidates.minMargin")
    prompt = _prompt(row.columns)
    pairs: list[Pair] = []
    for better, worse in chosen:
        pair = assemble(row, prompt, answer(better.response), answer(worse.response))
        remarks = (*pair.remarks, _BLANK) if blank and not pairs else pair.remarks
        pairs.append(replace(pair, score_chosen=better.score, score_rejected=worse.score, remarks=remarks))
    return pairs


def _apart(better: _Candidate, worse: _Candidate, margin: float) -> bool:
    return better.worth > worse.worth and better.worth - worse.worth >= margin and better.response != worse.response


def _candidates(columns: Mapping[str, Any]) -> tuple[list[_Candidate], bool]:
    """Read those that have a text and something that orders them; returns whether others were blank, too.

    Scores decide where each has one, else ranks: a score of one is not to be compared with a rank of another.

    Raises:
        RowError: they cannot be read, or are ordered by different things.

    """
    name = _first(columns, CANDIDATES)
    items = columns[name] if name else None
    if not isinstance(items, list):
        raise RowError(f"no list of candidates among the columns ({', '.join(sorted(columns)) or 'none'})")
    if all(isinstance(item, dict) for item in items):
        read = [(_first_of(item, _TEXTS), _first_of(item, _SCORES), item.get("rank")) for item in items]
    else:
        read = list(zip(items, _column(columns, CANDIDATE_SCORES, items), _column(columns, CANDIDATE_RANKS, items),
                        strict=True))  # fmt: skip
    written = []
    for response, score, rank in read:
        if not isinstance(response, str):
            raise RowError(f"a candidate in {name} without a text")
        if response.strip():
            written.append((response, number(score), number(rank)))
    ordered = [(response, score, rank) for response, score, rank in written if (score, rank) != (None, None)]
    scored = [_Candidate(response, score, score) for response, score, _ in ordered if score is not None]
    ranked = [_Candidate(response, -rank, None) for response, _, rank in ordered if rank is not None]
    found = max(scored, ranked, key=len)  # Scores, where there are as many of both.
    if len(found) < len(ordered):
        raise RowError(f"a score of some candidates in {name}, and a rank of others")
    return found, len(written) < len(read)


def _column(columns: Mapping[str, Any], names: Sequence[str], items: Sequence[object]) -> Sequence[object]:
    name = _first(columns, names)
    if name is None:
        return [None] * len(items)
    if not isinstance(columns[name], list) or len(columns[name]) != len(items):
        raise RowError(f"as many {name} as there are candidates are needed")
    return list(columns[name])


def _prompt(columns: Mapping[str, Any]) -> list[Message]:
    name = _first(columns, _PROMPTS)
    if name is None:
        raise RowError(f"no prompt among the columns ({', '.join(sorted(columns))})")
    if name in ("messages", "conversations"):
        return messages(columns[name], name)
    asked = text_or_messages(columns, name)
    if not isinstance(asked, str):
        return asked
    if turns := transcript.prompt_turns(asked):
        return turns
    extra = text(columns, "input") if name == "instruction" else ""
    return [user("\n".join(part for part in (asked, extra) if part.strip()))]


def _first(columns: Mapping[str, Any], names: Sequence[str]) -> str | None:
    return next((name for name in names if columns.get(name) is not None), None)


def _first_of(item: Mapping[str, Any], names: Sequence[str]) -> object:
    name = _first(item, names)
    return item[name] if name else None
