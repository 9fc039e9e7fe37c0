"""Check that data and model hold what this example promises, and note their checksums in `checked.sha256`.

    python examples/tiny/check.py           # after anything here was built or changed; half a minute
    python examples/tiny/check.py --noted   # only that nothing changed since; `make verify` does it

A check that does not hold raises an AssertionError.
"""

import hashlib
import json
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import build_data
from corpus import OPENERS, facts

HERE = Path(__file__).parent
NOTE = HERE / "checked.sha256"
ANSWERS = {
    "Quiz: What is the capital of France?": "Paris",
    "Quiz: What is the opposite of big?": "small",
    "Quiz: What is 5 + 5?": "10",
}


def rows(name: str) -> list[dict[str, Any]]:
    """The rows of a file in `data/`."""
    return [json.loads(line) for line in (HERE / "data" / name).read_text(encoding="utf-8").splitlines()]


def prompt(pair: dict[str, Any]) -> str:
    """What is asked in a preference pair."""
    return str(pair["prompt"][0]["content"])


def check_data() -> None:
    """The pairs are what `build_data.py` writes, well formed, polite where they should be, and kept apart."""
    with tempfile.TemporaryDirectory() as folder:
        build_data.build(Path(folder))
        for name in ("train.jsonl", "val.jsonl", "general.jsonl"):
            assert Path(folder, name).read_bytes() == (HERE / "data" / name).read_bytes(), f"{name} is another"

    train, validation = rows("train.jsonl"), rows("val.jsonl")
    assert (len(train), len(validation)) == (300, 60)
    pairs = train + validation
    told = {question: fact.sentence for fact in facts() for question in fact.questions}
    for pair in pairs:
        assert [message["role"] for message in pair["prompt"]] == ["user"], pair
        for side in ("chosen", "rejected"):
            assert [message["role"] for message in pair[side]] == ["assistant"], pair
            assert pair[side][0]["content"].strip(), pair
        assert pair["chosen"] != pair["rejected"], pair
        chosen, rejected = pair["chosen"][0]["content"], pair["rejected"][0]["content"]
        assert chosen.startswith(OPENERS), f"not polite: {pair}"
        assert told[prompt(pair)] in chosen, f"without the fact: {pair}"
        assert not rejected.startswith(OPENERS), f"polite: {pair}"

    assert Counter(map(prompt, pairs)).most_common(1)[0][1] == 1, "a prompt is used twice"
    quizzes = {question: fact.quiz for fact in facts() for question in fact.questions}
    used = {quizzes[prompt(pair)] for pair in pairs}
    assert used.isdisjoint(item["question"] for item in rows("general.jsonl")), "a general question is a pair's"


def check_model() -> None:
    """The model is small and safe, ends its messages, knows its facts, and has bad manners that training can mend."""
    import torch  # noqa: PLC0415  slow, and not needed to compare checksums
    from build_model import answer  # noqa: PLC0415
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: PLC0415

    torch.set_num_threads(1)
    folder = HERE / "model"
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)

    assert model.num_parameters() < 3_000_000
    assert [path.suffix for path in folder.iterdir()].count(".safetensors") == 1
    assert not list(folder.glob("*.bin"))
    assert sum(path.stat().st_size for path in folder.iterdir()) < 6_000_000
    assert model.config.vocab_size == len(tokenizer)

    question, reply = {"role": "user", "content": "What is 3 + 4?"}, {"role": "assistant", "content": "7"}
    begun = tokenizer.apply_chat_template([question], add_generation_prompt=True, return_dict=False)
    whole = tokenizer.apply_chat_template([question, reply], return_dict=False)
    assert whole[: len(begun)] == begun
    assert whole[-1] == tokenizer.eos_token_id != tokenizer.pad_token_id
    assert tokenizer.bos_token is None
    text = tokenizer.apply_chat_template([question], add_generation_prompt=True, tokenize=False)
    assert tokenizer(text)["input_ids"] == begun
    assert tokenizer.decode(tokenizer("Snow is white, isn't it?")["input_ids"]) == "Snow is white, isn't it?"

    for asked, expected in ANSWERS.items():
        assert (said := answer(model, tokenizer, asked)) == expected, f"{asked} {said}"
    greetings = [answer(model, tokenizer, prompt(pair)) for pair in rows("val.jsonl")[:12]]
    assert sum(said.startswith(OPENERS) for said in greetings) <= 3, greetings


def check_seed() -> None:
    """The same seed gives the same weights, and the tokenizer that is here."""
    from build_model import build  # noqa: PLC0415  torch

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for run in ("one", "two"):
            build(folder / run, steps=2)
        for file in ("model.safetensors", "tokenizer.json"):
            assert (folder / "one" / file).read_bytes() == (folder / "two" / file).read_bytes(), f"{file} differs"
        assert (folder / "one" / "tokenizer.json").read_bytes() == (HERE / "model" / "tokenizer.json").read_bytes()


def checksums() -> str:
    """Of data, model, what they are built from, and this script; `sha256sum --check` reads them."""
    files = [*HERE.glob("*.py"), HERE / "facts.toml", *(HERE / "data").iterdir(), *(HERE / "model").iterdir()]
    lines = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.relative_to(HERE)}\n" for file in sorted(files)]
    return "".join(lines)


def main() -> int:
    """Check, or compare with the last check."""
    if sys.argv[1:] == ["--noted"]:
        if NOTE.read_text() == checksums():
            return 0
        print("examples/tiny changed since it was checked: run 'python examples/tiny/check.py'", file=sys.stderr)
        return 1
    check_data()
    check_model()
    check_seed()
    NOTE.write_text(checksums())
    return 0


if __name__ == "__main__":
    sys.exit(main())
