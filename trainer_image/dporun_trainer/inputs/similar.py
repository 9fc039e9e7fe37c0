"""Which texts nearly repeat an earlier one: MinHash and locality-sensitive hashing, in a time that grows with the data.

Texts are sets of sequences of three words; their similarity is that of Jaccard, which MinHash estimates (Broder, "On
the resemblance and containment of documents", 1997). With 128 permutations the estimate's standard error at 0.8 is
0.035. A system message counts for nothing: many conversations share it.
"""

import re
from array import array
from collections import Counter

from rensa import RMinHash, RMinHashLSH

from dporun_trainer.data.pairs import Text, text_digest

_PERMUTATIONS = 128
_SEED = 1
_RECALL = 0.95
"""Least share of the copies at the very threshold that are found."""
_WORDS = 3
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|\w+")
"""A word; a single character in writing that puts no space between words."""
_TEMPLATE_SHARE = 0.1
_TEMPLATE_COUNT = 10


class Texts:
    """Different texts by number, in the order in which they are first seen.

    Attributes:
        kin: for each, the number of the first text that it nearly repeats; its own where there is none.

    """

    def __init__(self, similarity: float):
        self.kin = array("L")
        self._numbers: dict[bytes, int] = {}
        self._copies = None if similarity >= 1 else _NearCopies(similarity)

    def number(self, text: Text) -> int:
        """Number of a text."""
        digest = text_digest(text)
        number = self._numbers.get(digest)
        if number is None:
            number = self._numbers[digest] = len(self.kin)
            self.kin.append(number if self._copies is None else self._copies.first_of(number, text))
        return number

    def close(self) -> None:
        """Free what finds copies: of 100,000 prompts it takes some 100 MiB. No further text is compared."""
        self._copies = None

    def digests(self) -> list[bytes]:
        """Digest of each text."""
        return list(self._numbers)

    def families(self) -> "array[int]":
        """``kin``, but of texts that are too many to be copies: they have a long beginning in common, a template.

        Each of those stands for itself.
        """
        sizes = Counter(self.kin)
        most = max(_TEMPLATE_COUNT, _TEMPLATE_SHARE * len(self.kin))
        return array("L", (kin if sizes[kin] <= most else number for number, kin in enumerate(self.kin)))


class _NearCopies:
    """Finds the first similar text; a text without one can be that of later ones."""

    def __init__(self, similarity: float):
        self._similarity = similarity
        self._buckets = RMinHashLSH(similarity, _PERMUTATIONS, _bands(similarity))
        self._sketches: dict[int, RMinHash] = {}

    def first_of(self, number: int, text: Text) -> int:
        sketch = RMinHash(_PERMUTATIONS, _SEED)
        sketch.update(_sequences(text))
        for candidate in sorted(self._buckets.query(sketch)):
            if sketch.jaccard(self._sketches[candidate]) >= self._similarity:
                return int(candidate)
        self._buckets.insert(number, sketch)
        self._sketches[number] = sketch
        return number


def _bands(similarity: float) -> int:
    """Fewest bands that find _RECALL of the pairs at the threshold: 1 - (1 - s^rows)^bands."""
    counts = (2**power for power in range(_PERMUTATIONS.bit_length()))
    found = (bands for bands in counts if 1 - (1 - similarity ** (_PERMUTATIONS / bands)) ** bands >= _RECALL)
    return next(found, _PERMUTATIONS)


def _sequences(text: Text) -> list[str]:
    """Sequences of three words; of a shorter text all its words."""
    if not isinstance(text, str):
        text = " ".join(message["content"] for message in text if message["role"] != "system")
    words = text.lower().split() if text.isascii() else _WORD.findall(text.lower())
    if len(words) < _WORDS:
        return [" ".join(words)]
    return [" ".join(sequence) for sequence in zip(*(words[start:] for start in range(_WORDS)), strict=False)]
