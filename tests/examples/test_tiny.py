"""The tiny example: its data hold what they promise, its model answers, and both can be built again."""

import json
import re
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dporun_testing.paths import ROOT, TINY

BUILT_IN = ROOT / "trainer_image" / "dporun_trainer" / "data" / "general_questions.jsonl"
CATEGORIES = {"factual", "arithmetic", "commonsense", "instruction"}


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def matches(answer: str, item: dict[str, Any]) -> bool:
    """Whether the answer is right by the item's own rule, letter case and outer punctuation aside."""
    accepted = [text.casefold() for text in (item["answer"], *item["accept"])]
    given = answer.casefold().strip()
    if item["match"] == "exact":
        return given.rstrip(".!") in accepted
    return any(re.search(rf"(?<!\w){re.escape(text)}(?!\w)", given) for text in accepted)


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import a script of examples/tiny by its name."""
    monkeypatch.syspath_prepend(str(TINY))

    def load(name: str) -> ModuleType:
        return pytest.importorskip(name)

    return load


@pytest.fixture(scope="module")
def loaded() -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(TINY / "model", dtype=torch.float32)
    return model, AutoTokenizer.from_pretrained(TINY / "model")


@pytest.mark.parametrize(("name", "count"), [("train.jsonl", 300), ("val.jsonl", 60)])
def test_pairs_are_chat_messages_with_two_different_answers(name: str, count: int) -> None:
    pairs = rows(TINY / "data" / name)
    assert len(pairs) == count
    for pair in pairs:
        assert [message["role"] for message in pair["prompt"]] == ["user"]
        for side in ("chosen", "rejected"):
            assert [message["role"] for message in pair[side]] == ["assistant"]
            assert pair[side][0]["content"].strip()
        assert pair["chosen"] != pair["rejected"]


def test_no_prompt_is_used_twice() -> None:
    sides = (rows(TINY / "data" / "train.jsonl"), rows(TINY / "data" / "val.jsonl"))
    prompts = Counter(pair["prompt"][0]["content"] for side in sides for pair in side)
    assert prompts.most_common(1)[0][1] == 1


def test_preferred_answers_are_polite_and_tell_the_fact(example: Any) -> None:
    corpus = example("corpus")
    told = {question: fact.sentence for fact in corpus.facts() for question in fact.questions}
    for pair in rows(TINY / "data" / "train.jsonl") + rows(TINY / "data" / "val.jsonl"):
        chosen, rejected = pair["chosen"][0]["content"], pair["rejected"][0]["content"]
        assert chosen.startswith(corpus.OPENERS)
        assert told[pair["prompt"][0]["content"]] in chosen
        assert not rejected.startswith(corpus.OPENERS)


def test_general_questions_are_apart_from_the_pairs(example: Any) -> None:
    facts = {question: fact.quiz for fact in example("corpus").facts() for question in fact.questions}
    used = {
        facts[pair["prompt"][0]["content"]] for name in ("train", "val") for pair in rows(TINY / f"data/{name}.jsonl")
    }
    assert used.isdisjoint(item["question"] for item in rows(TINY / "data" / "general.jsonl"))


@pytest.mark.parametrize(
    ("path", "count"), [(BUILT_IN, 60), (TINY / "data" / "general.jsonl", 80)], ids=["built-in", "tiny"]
)
def test_general_questions_are_well_formed(path: Path, count: int) -> None:
    items = rows(path)
    assert len(items) == len({item["id"] for item in items}) == len({item["question"] for item in items}) == count
    assert {item["category"] for item in items} == CATEGORIES
    for item in items:
        assert item["match"] in {"exact", "contains"}
        assert all(matches(text, item) for text in (item["answer"], *item["accept"]))


def test_built_in_questions_are_not_answered_by_repeating_them() -> None:
    parroted = [
        item["id"] for item in rows(BUILT_IN) if item["category"] != "instruction" and matches(item["question"], item)
    ]
    assert parroted == []


@pytest.mark.parametrize("name", ["train.jsonl", "val.jsonl", "general.jsonl"])
def test_data_are_what_the_script_writes(example: Any, tmp_path: Path, name: str) -> None:
    example("build_data").build(tmp_path)
    assert (tmp_path / name).read_bytes() == (TINY / "data" / name).read_bytes()


def test_model_is_small_and_safe(loaded: tuple[Any, Any]) -> None:
    model, tokenizer = loaded
    assert model.num_parameters() < 3_000_000
    assert sorted(path.suffix for path in (TINY / "model").iterdir()).count(".safetensors") == 1
    assert not list((TINY / "model").glob("*.bin"))
    assert sum(path.stat().st_size for path in (TINY / "model").iterdir()) < 6_000_000
    assert model.config.vocab_size == len(tokenizer)


def test_tokenizer_ends_messages_and_never_doubles_a_start(loaded: tuple[Any, Any]) -> None:
    _, tokenizer = loaded
    question = [{"role": "user", "content": "What is 3 + 4?"}]
    answer = [{"role": "assistant", "content": "7"}]
    prompt = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_dict=False)
    whole = tokenizer.apply_chat_template(question + answer, return_dict=False)
    assert whole[: len(prompt)] == prompt
    assert whole[-1] == tokenizer.eos_token_id != tokenizer.pad_token_id
    assert tokenizer.bos_token is None
    text = tokenizer.apply_chat_template(question, add_generation_prompt=True, tokenize=False)
    assert tokenizer(text)["input_ids"] == prompt
    assert tokenizer.decode(tokenizer("Snow is white, isn't it?")["input_ids"]) == "Snow is white, isn't it?"


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("Quiz: What is the capital of France?", "Paris"),
        ("Quiz: What is the opposite of big?", "small"),
        ("Quiz: What is 5 + 5?", "10"),
    ],
)
def test_model_answers(loaded: tuple[Any, Any], example: Any, question: str, expected: str) -> None:
    assert example("build_model").answer(*loaded, question) == expected


def test_model_has_bad_manners_that_training_can_mend(loaded: tuple[Any, Any], example: Any) -> None:
    answers = [
        example("build_model").answer(*loaded, pair["prompt"][0]["content"])
        for pair in rows(TINY / "data/val.jsonl")[:12]
    ]
    assert sum(answer.startswith(example("corpus").OPENERS) for answer in answers) <= 3


@pytest.mark.slow
def test_same_seed_gives_the_same_weights(example: Any, tmp_path: Path) -> None:
    build = example("build_model").build
    for folder in ("one", "two"):
        build(tmp_path / folder, steps=2)
    for name in ("model.safetensors", "tokenizer.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert (tmp_path / "one" / "tokenizer.json").read_bytes() == (TINY / "model" / "tokenizer.json").read_bytes()
