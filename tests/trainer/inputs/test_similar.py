"""Near copies: which are found, which belong together, and how many comparisons that takes."""

import random
from typing import Any

import pytest
from rensa import RMinHash

from dporun_trainer.inputs import similar
from dporun_trainer.inputs.similar import Texts

TEMPLATE = (
    "Below is an instruction that describes a task, paired with an input that provides further context. Write a "
    "response that appropriately completes the request. Instruction:"
)


def words(chance: random.Random, count: int) -> list[str]:
    return [f"w{chance.randrange(20_000)}" for _ in range(count)]


def chains(count: int) -> list[tuple[str, str, str]]:
    """Three texts each: the second nearly repeats the first, and the third the second, but not the first."""
    chance = random.Random(1)
    out = []
    for _ in range(count):
        first = words(chance, 60)
        second = [*first[:-4], *words(chance, 4)]
        third = [*words(chance, 4), *second[4:]]
        out.append((" ".join(first), " ".join(second), " ".join(third)))
    return out


def test_copies_of_copies_are_one_family() -> None:
    texts = Texts(0.8)
    for chain in chains(100):
        for text in chain:
            texts.number(text)
    families = texts.families()
    assert sum(len({*families[start : start + 3]}) == 1 for start in range(0, 300, 3)) >= 90
    assert len(set(families)) >= 100


def test_a_family_is_known_by_no_order() -> None:
    rows = [text for chain in chains(50) for text in chain]
    named = []
    for _ in range(2):
        texts = Texts(0.8)
        numbers = [texts.number(text) for text in rows]
        digests, families = texts.digests(), texts.families()
        named.append({text: digests[families[number]] for text, number in zip(rows, numbers, strict=True)})
        random.Random(2).shuffle(rows)
    assert named[0] == named[1]


@pytest.mark.parametrize(("others", "kept"), [(89, False), (139, True)])
def test_more_than_a_tenth_alike_are_a_template(others: int, kept: bool) -> None:
    chance = random.Random(3)
    start = words(chance, 80)
    texts = Texts(0.8)
    copies = [texts.number(" ".join([*start, *words(chance, 1)])) for _ in range(11)]
    for _ in range(others):
        texts.number(" ".join(words(chance, 30)))
    families = texts.families()
    assert len({families[number] for number in copies}) == (1 if kept else 11)


def test_ten_alike_are_copies_however_few_there_are() -> None:
    start = words(random.Random(3), 80)
    texts = Texts(0.8)
    for number in range(10):
        texts.number(" ".join([*start, str(number)]))
    assert len(set(texts.families())) == 1


def test_comparisons_grow_with_the_number_of_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A template that all prompts share must not make each one a candidate of every other one."""
    compared = 0

    class Counted:
        def __init__(self, *options: int):
            self.sketch = RMinHash(*options)
            self.update, self.digest = self.sketch.update, self.sketch.digest

        def jaccard(self, other: "Counted") -> float:
            nonlocal compared
            compared += 1
            return self.sketch.jaccard(other.sketch)

    monkeypatch.setattr(similar, "RMinHash", Counted)
    chance, texts, counts = random.Random(4), Texts(0.8), []
    for _ in range(2):
        for _ in range(1500):
            texts.number(" ".join([TEMPLATE, *words(chance, chance.randint(8, 39))]))
        counts.append(compared)
    assert 0 < counts[1] < 3 * counts[0]


def test_copies_within_a_template_are_found() -> None:
    chance, texts, found = random.Random(5), Texts(0.8), 0
    prompts = [words(chance, 30) for _ in range(1000)]
    for own in prompts:
        texts.number(" ".join([TEMPLATE, *own]))
    for number, own in enumerate(prompts):
        found += texts.kin[texts.number(" ".join([TEMPLATE, *own, "please"]))] == number
    assert found >= 950


def test_calls_of_tools_with_other_arguments_are_no_copies() -> None:
    texts = Texts(0.8)
    for city in ("Oslo", "Lima", "Kyiv"):
        call: dict[str, Any] = {"function": {"name": "weather", "arguments": {"city": city}}}
        texts.number([{"role": "assistant", "content": "", "tool_calls": [call]}])
    assert list(texts.kin) == [0, 1, 2]
