"""Which texts are near copies: MinHash and locality-sensitive hashing, in a time that grows with the data.

Texts are sets of sequences of three words; their similarity is that of Jaccard, which MinHash estimates (Broder, "On
the resemblance and containment of documents", 1997). With 128 permutations the estimate's standard error at 0.8 is
0.035. A system message counts for nothing: many conversations share it.
"""

import json
import re
from array import array
from collections import Counter

from rensa import RMinHash

from dporun_trainer.data.pairs import Message, Text, text_digest

_PERMUTATIONS = 128
_SEED = 1
_RECALL = 0.9
"""Least share of the copies at the very threshold that are found."""
_BUCKET = 8
"""Most texts of a bucket that are compared with each later one."""
_WORDS = 3
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|\w+")
"""A word; a single character in writing that puts no space between words."""
_TEMPLATE_SHARE = 0.1
_TEMPLATE_COUNT = 10


class Texts:
    """Different texts by number, in the order in which they are first seen.

    Attributes:
        kin: for each, the number of the first text that it nearly repeats and that repeats none itself; its own where
            there is none.

    """

    def __init__(self, similarity: float):
        self.kin = array("L")
        self._numbers: dict[bytes, int] = {}
        self._digests: list[bytes] = []
        self._parents = array("L")
        self._copies = None if similarity >= 1 else _NearCopies(similarity)

    def number(self, text: Text) -> int:
        """Number of a text."""
        digest = text_digest(text)
        number = self._numbers.get(digest)
        if number is None:
            number = self._numbers[digest] = len(self.kin)
            self._digests.append(digest)
            self._parents.append(number)
            copies = [] if self._copies is None else self._copies.add(number, text)
            self.kin.append(next((other for other in copies if self.kin[other] == other), number))
            for other in copies:
                self._join(number, other)
        return number

    def close(self) -> None:
        """Free what finds copies: of 100,000 prompts it takes some 250 MiB. No further text is compared."""
        self._copies = None

    def digests(self) -> list[bytes]:
        """Digest of each text."""
        return self._digests

    def families(self) -> "array[int]":
        """For each text, that of the smallest digest among all that near copies link with it: A with B, B with C.

        Texts that are too many to be copies have a long beginning in common, a template: each stands for itself.
        """
        roots = array("L", map(self._root, range(len(self.kin))))
        sizes = Counter(roots)
        most = max(_TEMPLATE_COUNT, _TEMPLATE_SHARE * len(roots))
        return array("L", (root if sizes[root] <= most else number for number, root in enumerate(roots)))

    def _join(self, one: int, other: int) -> None:
        # The digest decides which one stands for both, so that no order of texts matters.
        small, large = sorted((self._root(one), self._root(other)), key=self._digests.__getitem__)
        self._parents[large] = small

    def _root(self, number: int) -> int:
        parents = self._parents
        while parents[number] != number:
            parents[number] = number = parents[parents[number]]
        return number


class _NearCopies:
    """Finds the similar texts among those before.

    A bucket has the texts that are alike in one band of their sketches. No more than _BUCKET stay in it: those of a
    template all share some, and then comparisons would grow with the square of the data. Copies among them still meet
    in the bands of their own words.
    """

    def __init__(self, similarity: float):
        self._similarity = similarity
        self._rows = _PERMUTATIONS // _bands(similarity)
        self._first: dict[int, int] = {}
        self._more: dict[int, list[int]] = {}
        self._sketches: list[RMinHash] = []

    def add(self, number: int, text: Text) -> list[int]:
        """Add the text of the next number; returns the numbers of those that are similar, in order."""
        sketch = RMinHash(_PERMUTATIONS, _SEED)
        sketch.update(_sequences(text))
        self._sketches.append(sketch)
        digest = sketch.digest()
        candidates: set[int] = set()
        for begin in range(0, _PERMUTATIONS, self._rows):
            bucket = hash((begin, *digest[begin : begin + self._rows]))
            first = self._first.setdefault(bucket, number)
            if first != number:
                more = self._more.setdefault(bucket, [])
                candidates.update((first, *more))
                if len(more) < _BUCKET - 1:
                    more.append(number)
        return [one for one in sorted(candidates) if sketch.jaccard(self._sketches[one]) >= self._similarity]


def _bands(similarity: float) -> int:
    """Fewest bands that find _RECALL of the pairs at the threshold: 1 - (1 - s^rows)^bands."""
    counts = (2**power for power in range(_PERMUTATIONS.bit_length()))
    found = (bands for bands in counts if 1 - (1 - similarity ** (_PERMUTATIONS / bands)) ** bands >= _RECALL)
    return next(found, _PERMUTATIONS)


def _sequences(text: Text) -> list[str]:
    """Sequences of three words; of a shorter text all its words."""
    if not isinstance(text, str):
        text = " ".join(_said(message) for message in text if message["role"] != "system")
    words = text.lower().split() if text.isascii() else _WORD.findall(text.lower())
    if len(words) < _WORDS:
        return [" ".join(words)]
    return [" ".join(sequence) for sequence in zip(*(words[start:] for start in range(_WORDS)), strict=False)]


def _said(message: Message) -> str:
    """What a message says, and which tools it calls how."""
    calls = message.get("tool_calls")
    return f"{message['content']} {json.dumps(calls, ensure_ascii=False)}" if calls else str(message["content"])
