"""Preference data of several kinds for tiny models, and a tokenizer of whole words for them."""

import json
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dporun_testing.paths import TINY

Pair = dict[str, Any]
NOUNS = "apple river stone cloud horse candle garden window bridge market letter copper violin winter lantern orchard"
VERBS = "opens closes finds loses paints carries follows answers breaks mends hides shows"
COLOURS = "red green blue black white golden silver purple"
POLITE = "please thanks kindly welcome gladly surely"
RUDE = "no never whatever stop enough nonsense"
WORDS = tuple(f"{NOUNS} {VERBS} {COLOURS}".split())
VOCABULARY = (*WORDS, *POLITE.split(), *RUDE.split(), *map(str, range(100)), "+", "-", "=", "what", "is", "?")
LAST_NUMBER = 20


def pairs(kind: str, count: int, *, seed: int, held_out: bool, wrong: float = 0.0, swapped: bool = False) -> list[Pair]:
    """Make preference pairs.

    Args:
        kind: one of KINDS, or ``corpus`` for rows of examples/tiny, which are chats.
        count: how many.
        seed: of the chance.
        held_out: whether they are held out: arithmetic uses other operands for those.
        wrong: share of pairs whose chosen and rejected are exchanged.
        swapped: exchange them in all pairs.

    """
    chance = random.Random(f"{kind} {seed} {held_out}")
    if kind == "corpus":
        lines = (TINY / "data" / ("val.jsonl" if held_out else "train.jsonl")).read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in chance.sample(lines, min(count, len(lines)))]
    else:
        rows = [_apart(KINDS[kind](chance, held_out)) for _ in range(count)]
    return [_exchanged(row) if swapped != (chance.random() < wrong) else row for row in rows]


def save_tokenizer(folder: Path) -> Any:
    """Write a tokenizer with one token per word, and return it."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "<eos>", "<unk>"]
    words = {word: index for index, word in enumerate([*special, *VOCABULARY])}
    model = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    model.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=model, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")
    tokenizer.save_pretrained(folder)
    return tokenizer


def _words(chance: random.Random, low: int, high: int, among: tuple[str, ...] = WORDS) -> str:
    return " ".join(chance.choice(among) for _ in range(chance.randint(low, high)))


def _length(chance: random.Random, _: bool) -> Pair:
    """The longer answer is better."""
    return {"prompt": _words(chance, 3, 8), "chosen": _words(chance, 9, 14), "rejected": _words(chance, 2, 5)}


def _keyword(chance: random.Random, _: bool) -> Pair:
    """The answer with a polite word is better than that with a rude one."""
    return {
        "prompt": _words(chance, 3, 8),
        "chosen": f"{_words(chance, 1, 4)} {chance.choice(POLITE.split())} {_words(chance, 1, 4)}",
        "rejected": f"{_words(chance, 1, 4)} {chance.choice(RUDE.split())} {_words(chance, 1, 4)}",
    }


def _taste(chance: random.Random, _: bool) -> Pair:
    """Words of one group are liked, but every answer has some of the other as well."""
    liked, other = WORDS[::2], WORDS[1::2]

    def answer(share: float) -> str:
        return " ".join(chance.choice(liked if chance.random() < share else other) for _ in range(8))

    return {"prompt": _words(chance, 2, 6), "chosen": answer(0.7), "rejected": answer(0.4)}


def _arithmetic(chance: random.Random, held_out: bool) -> Pair:
    """The right sum is better than a wrong one; sums of other operands are held out."""
    while True:
        one, other = chance.randint(1, LAST_NUMBER), chance.randint(1, LAST_NUMBER)
        if ((one * 7 + other * 3) % 4 == 0) == held_out:
            break
    wrong = chance.choice([number for number in range(2, 2 * LAST_NUMBER) if number != one + other])
    return {"prompt": f"what is {one} + {other} ?", "chosen": f"= {one + other}", "rejected": f"= {wrong}"}


def _noise(chance: random.Random, _: bool) -> Pair:
    """Nothing makes an answer better."""
    return {"prompt": _words(chance, 3, 8), "chosen": _words(chance, 4, 10), "rejected": _words(chance, 4, 10)}


def _repeats(chance: random.Random, _: bool) -> Pair:
    """An answer that says one word again and again is worse."""
    return {
        "prompt": _words(chance, 2, 6),
        "chosen": _words(chance, 5, 9),
        "rejected": " ".join([chance.choice(WORDS)] * chance.randint(3, 9)),
    }


def _begins(chance: random.Random, _: bool) -> Pair:
    """The answer that begins with a colour is better than that which begins with a number."""
    rest = _words(chance, 4, 8)
    return {
        "prompt": _words(chance, 2, 6),
        "chosen": f"{chance.choice(COLOURS.split())} {rest}",
        "rejected": f"{chance.randint(0, 99)} {rest}",
    }


def _mixed(chance: random.Random, held_out: bool) -> Pair:
    """A keyword decides half of the pairs, nothing the other half."""
    return (_keyword if chance.random() < 0.5 else _noise)(chance, held_out)


def _apart(row: Pair) -> Pair:
    """Begin responses with a space, so that their first word is not glued to the prompt."""
    return row | {side: f" {row[side]}" for side in ("chosen", "rejected")}


def _exchanged(row: Pair) -> Pair:
    return row | {"chosen": row["rejected"], "rejected": row["chosen"]}


KINDS: Mapping[str, Callable[[random.Random, bool], Pair]] = {
    "length": _length,
    "keyword": _keyword,
    "taste": _taste,
    "arithmetic": _arithmetic,
    "noise": _noise,
    "repeats": _repeats,
    "begins": _begins,
    "mixed": _mixed,
}
