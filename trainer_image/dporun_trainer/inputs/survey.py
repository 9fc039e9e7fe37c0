"""What the pairs of a source have in common with one another: repetitions, contradictions, groups. No tokenizer."""

from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field

from dporun_trainer.data.pairs import Pair, Tally, row_digest
from dporun_trainer.inputs.similar import Texts


@dataclass
class Survey:
    """Looks at the pairs of one source, one after the other; they are known by their index from then on.

    Attributes:
        prompts: of all sources of a run, so that prompts of both sides can be compared.
        responses: of this source.
        prompt: number of each pair's prompt.
        group: number of each pair's group (dataset.groupBy); empty without one.
        repeats: pairs that say the same as an earlier one, and which.
        near_repeats: pairs of which prompt, chosen and rejected nearly repeat those of an earlier one, and which.
        contradictions: pairs that are there with chosen and rejected exchanged, and which.

    """

    prompts: Texts
    responses: Texts
    prompt: "array[int]" = field(default_factory=lambda: array("L"))
    group: "array[int]" = field(default_factory=lambda: array("L"))
    repeats: dict[int, int] = field(default_factory=dict)
    near_repeats: dict[int, int] = field(default_factory=dict)
    contradictions: dict[int, int] = field(default_factory=dict)
    group_keys: dict[bytes, int] = field(default_factory=dict)
    _files: dict[str, int] = field(default_factory=dict)
    _names: list[str] = field(default_factory=list)
    _file: "array[int]" = field(default_factory=lambda: array("L"))
    _row: "array[int]" = field(default_factory=lambda: array("L"))
    _seen: dict[bytes, int] = field(default_factory=dict)
    _near: dict[tuple[int, int, int], int] = field(default_factory=dict)

    def add(self, pair: Pair, group: bytes | None) -> None:
        """Look at the next pair; ``group`` is what dataset.groupBy says of its row."""
        index = len(self.prompt)
        prompt = self.prompts.number(pair.prompt)
        self.prompt.append(prompt)
        file = self._files.setdefault(pair.file, len(self._files))
        if file == len(self._names):
            self._names.append(pair.file)
        self._file.append(file)
        self._row.append(pair.number)
        if group is not None:
            self.group.append(self.group_keys.setdefault(group, len(self.group_keys)))
        first = self._seen.setdefault(row_digest(pair), index)
        if first != index:
            self.repeats[index] = first
        else:
            responses = [self.responses.number(text) for text in (pair.chosen, pair.rejected)]
            chosen, rejected = (self.responses.kin[number] for number in responses)
            near = self._near.setdefault((self.prompts.kin[prompt], chosen, rejected), index)
            if near != index:
                self.near_repeats[index] = near
        # Equal responses are their own opposite; dataset.identicalResponses is about them.
        opposite = self._seen.get(row_digest(pair, swapped=True)) if pair.chosen != pair.rejected else None
        if opposite is not None:
            self.contradictions[index] = opposite
            self.contradictions.setdefault(opposite, index)

    def contradicting(self) -> dict[int, int]:
        """Every pair of which the opposite is there, repetitions included, and that opposite."""
        first = self.contradictions
        return first | {again: first[index] for again, index in self.repeats.items() if index in first}

    def place(self, index: int) -> tuple[str, int]:
        """File and number of the row that a pair is from."""
        return self._names[self._file[index]], self._row[index]

    def tally(self, indexes: Iterable[int]) -> Tally:
        """Rows that some pairs are from."""
        tally = Tally()
        for index in indexes:
            tally.add(*self.place(index))
        return tally
