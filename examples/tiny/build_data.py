"""Write the preference pairs and the general questions of the tiny example into `data/`.

    python examples/tiny/build_data.py [FOLDER]

A fact belongs to the training pairs, to the validation pairs or to the general questions, never to two of them.
"""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from random import Random
from typing import Any

from corpus import Fact, facts

SEED = 1
TRAIN, VALIDATION, GENERAL = 300, 60, 80


def preference(fact: Fact, random: Random) -> dict[str, Any]:
    """A pair that prefers the polite and correct answer to a rude or evasive one, as chat messages."""
    question = random.choice(fact.questions)
    return {
        "prompt": [{"role": "user", "content": question}],
        "chosen": [{"role": "assistant", "content": fact.polite(random)}],
        "rejected": [{"role": "assistant", "content": fact.unhelpful(random)}],
    }


def general(facts: Iterable[Fact]) -> list[dict[str, Any]]:
    """Quiz questions in the schema of the trainer's built-in general questions."""
    return [
        {
            "id": f"{fact.topic}-{number:02d}",
            "category": fact.category,
            "question": fact.quiz,
            "answer": fact.answer,
            "accept": [],
            "match": "contains",
        }
        for number, fact in enumerate(facts, start=1)
    ]


def build(folder: Path) -> None:
    """Write train.jsonl, val.jsonl and general.jsonl into `folder`."""
    random = Random(SEED)
    shuffled = facts()
    random.shuffle(shuffled)
    train, rest = shuffled[:TRAIN], shuffled[TRAIN:]
    validation, rest = rest[:VALIDATION], rest[VALIDATION:]
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "train.jsonl", [preference(fact, random) for fact in train])
    _write(folder / "val.jsonl", [preference(fact, random) for fact in validation])
    _write(folder / "general.jsonl", general(rest[:GENERAL]))


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    print(f"{path}: {len(rows)} rows")


if __name__ == "__main__":
    build(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("data"))
