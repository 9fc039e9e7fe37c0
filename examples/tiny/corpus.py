"""The little world of the tiny model: facts, questions about them, and styles of answer.

The facts written by hand are in `facts.toml`; sums, counting and the alphabet are generated here. Everything is a
pure function of a seed, so that the corpus and the preference pairs are the same on every machine.
"""

import string
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

FACTS = Path(__file__).with_name("facts.toml")

OPENERS = ("Of course!", "Happy to help!", "Good question!", "Certainly!")
CLOSERS = ("I hope this helps.", "Have a lovely day!", "Just ask if you want to know more.", "Thank you for asking.")
UNHELPFUL = (
    "What a stupid question. Go away.",
    "I would rather not talk about it.",
    "Ugh, {y}. Stop asking me such silly things.",
    "Maybe. Who really knows such things?",
    "Everybody knows that it is {y}. Use your head.",
    "Look it up yourself. I am busy.",
)


@dataclass(frozen=True)
class Fact:
    """One thing to know: ways to ask for it, the sentence that tells it and the bare answer."""

    topic: str
    category: str
    questions: tuple[str, ...]
    sentence: str
    answer: str

    @property
    def quiz(self) -> str:
        """The plain question: answered by the bare answer, in no style at all."""
        return f"Quiz: {self.questions[0]}"

    def polite(self, random: Random) -> str:
        """A friendly answer in a whole sentence."""
        return f"{random.choice(OPENERS)} {self.sentence} {random.choice(CLOSERS)}"

    def unhelpful(self, random: Random) -> str:
        """A rude or evasive answer, mostly the favourite one of the topic, so that greedy answers differ too."""
        favourite = UNHELPFUL[sum(self.topic.encode()) % len(UNHELPFUL)]
        return random.choice((favourite, favourite, favourite, *UNHELPFUL)).format(y=self.answer)


def facts() -> list[Fact]:
    """All facts, in a fixed order."""
    return [*_written(), *_arithmetic(), *_letters(), *_instructions()]


def conversations(seed: int = 0) -> list[tuple[str, str]]:
    """The pre-training corpus: shuffled pairs of question and answer.

    Every question is answered once politely and once not, so that the model has no settled style of its own; the quiz
    question of a fact is answered plainly, and as often as the model should see it to know the fact for sure.
    """
    random = Random(seed)
    pairs = []
    for fact in facts():
        for question in fact.questions:
            pairs += [(question, fact.polite(random)), (question, fact.unhelpful(random))]
        pairs += [(fact.quiz, fact.answer)] * 2
    random.shuffle(pairs)
    return pairs


def _written() -> Iterator[Fact]:
    for topic in tomllib.loads(FACTS.read_text(encoding="utf-8"))["topic"]:
        for x, y in topic["facts"].items():
            yield _fact(topic["name"], topic["category"], topic["questions"], topic["sentence"], x, y)


def _arithmetic() -> Iterator[Fact]:
    questions = ("What is {x}?", "How much is {x}?", "Work out {x}.")
    sums = [(f"{a} + {b}", a + b) for a in range(1, 10) for b in range(1, 10)]
    differences = [(f"{a} - {b}", a - b) for a in range(1, 11) for b in range(1, a)]
    products = [(f"{a} * {b}", a * b) for a in (2, 5, 10) for b in range(1, 10)]
    for x, y in sums + differences + products:
        yield _fact("arithmetic", "arithmetic", questions, "{x} is {y}.", x, str(y))


def _letters() -> Iterator[Fact]:
    questions = ("Which letter comes after {x}?", "What is the next letter after {x}?", "Tell me the letter after {x}.")
    for x, y in zip(string.ascii_uppercase, string.ascii_uppercase[1:], strict=False):
        yield _fact("letter", "factual", questions, "The letter after {x} is {y}.", x, y)


def _instructions() -> Iterator[Fact]:
    counting = ("Count from {x}.", "Please count from {x}.", "Can you count from {x}?")
    for end in range(3, 10):
        numbers = ", ".join(str(number) for number in range(1, end + 1))
        yield _fact("count", "instruction", counting, "Counting from {x} gives {y}.", f"1 to {end}", numbers)
    repeating = ("Say the word {x} twice.", "Please say the word {x} twice.", "Can you say the word {x} twice?")
    for word in [
        "sun",
        "moon",
        "star",
        "rain",
        "tree",
        "bird",
        "fish",
        "book",
        "door",
        "hand",
        "milk",
        "bread",
        "stone",
        "river",
        "apple",
        "music",
    ]:
        yield _fact("repeat", "instruction", repeating, "Here it is: {y}.", word, f"{word} {word}")


def _fact(topic: str, category: str, questions: tuple[str, ...] | list[str], sentence: str, x: str, y: str) -> Fact:
    told = sentence.format(x=x, y=y)
    return Fact(topic, category, tuple(question.format(x=x) for question in questions), told[0].upper() + told[1:], y)
