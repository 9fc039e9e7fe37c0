"""Rows in, train.jsonl and validation.jsonl out, and what is said about them: cases/data/*.yaml."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from dporun_api.dataset_report import DropReason, ScoreFacts
from dporun_api.pod import ExitCode
from dporun_api.run_config import Dataset as Policies
from dporun_api.v1alpha1.reasons import Reason
from dporun_testing.tiny_model import chat_pairs, text_pairs, write_rows
from dporun_trainer.data.rows import RowFile
from dporun_trainer.errors import RunError
from dporun_trainer.inputs.dataset import Dataset, Side, build
from dporun_trainer.inputs.encoding import Characters, Encoder, PairEncoder
from dporun_trainer.inputs.gather import Gathered, gather
from dporun_trainer.inputs.selection import select
from dporun_trainer.inputs.similar import Texts
from dporun_trainer.inputs.source import Source
from dporun_trainer.inputs.tokenizer import load_tokenizer

CASES = sorted((Path(__file__).parent / "cases" / "data").glob("*.yaml"))


@pytest.fixture(scope="module")
def tokenizer_folder(tiny_model: Path) -> Path:
    return tiny_model


def built(
    folder: Path, encoder: PairEncoder, rows: list[Any], validation: list[Any] | None = None, **options: Any
) -> Dataset:
    max_length = options.pop("max_length", 64)
    seed = options.pop("seed", 42)
    policies = Policies.model_validate({"train": "file://train.jsonl"} | options)

    def gathered(side: str, rows: list[Any], prompts: Texts | None = None) -> Gathered:
        path = write_rows(folder / f"{side}.jsonl", rows)
        source = Source(f"file://{side}.jsonl", [RowFile(path, path.name)])
        return gather(source, folder / "pairs" / path.name, policies, max_length=max_length, prompts=prompts)

    train = gathered("train", rows)
    other = None if validation is None else gathered("validation", validation, train.survey.prompts)
    out, tokens = folder / "out", not isinstance(encoder, Characters)
    return build(
        select(train, other, policies, seed),
        encoder,
        train_to=Side(out / "train.jsonl", out / "train.arrow" if tokens else None),
        validation_to=Side(out / "validation.jsonl", out / "validation.arrow" if tokens else None),
    )


def written(folder: Path, side: str = "train") -> list[Any]:
    return [json.loads(line) for line in (folder / "out" / f"{side}.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_case(path: Path, tokenizer_folder: Path, tmp_path: Path) -> None:
    case = yaml.safe_load(path.read_text())
    tokenizer = load_tokenizer(tokenizer_folder)
    if "chat_template" in case:
        tokenizer.chat_template = case["chat_template"]
    if "bos" in case:
        from tokenizers.processors import TemplateProcessing

        tokenizer.bos_token = case["bos"]
        bos = (case["bos"], tokenizer.bos_token_id)
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=f"{bos[0]} $A", special_tokens=[bos])
    rows = case["rows"]
    if "repeat" in case:
        rows = [row | {"prompt": f"{row['prompt']} {n}"} for n in range(case["repeat"]) for row in rows]
    validation = case.get("validation", text_pairs(25) if isinstance(rows[0].get("prompt", ""), str) else None)
    if "written" in case or validation is None:
        validation = rows

    def run() -> Dataset:
        policies = case.get("policies", {})
        return built(tmp_path, Encoder(tokenizer), rows, validation, max_length=case["max_length"], **policies)

    if "errors" in case:
        with pytest.raises(RunError) as raised:
            run()
        assert raised.value.exit_code is ExitCode.DATA_INVALID
        for text in case["errors"]:
            assert text in raised.value.message
        return
    dataset = run()
    assert dataset.train_rows == case["kept"] == dataset.lint.train.kept
    for text in case.get("warnings", []):
        assert any(text in warning for warning in dataset.warnings), dataset.warnings
    if "dropped" in case:
        left_out = dataset.report.train.dropped
        assert [f"{row.row} {row.reason} {row.detail}".strip() for row in left_out] == case["dropped"]
        others = dataset.report.validation.dropped if dataset.report.validation else ()
        assert dataset.dropped == len(left_out) + len(others)
    if "leaked" in case:
        assert dataset.lint.leaked_prompts == case["leaked"]
    if "written" in case:
        assert written(tmp_path) == case["written"]


@pytest.fixture(scope="module")
def encoder(tiny_model: Path) -> Encoder:
    return Encoder(load_tokenizer(tiny_model))


def test_good_rows_have_lengths_and_no_warnings(encoder: Encoder, tmp_path: Path) -> None:
    dataset = built(tmp_path, encoder, chat_pairs(60), chat_pairs(25, seed=1))
    assert dataset.warnings == ()
    assert dataset.lint.train.conversational
    prompt, total = dataset.lint.train.prompt, dataset.lint.train.total
    assert prompt
    assert total
    assert 0 < prompt.p50 <= prompt.p90 <= prompt.p99 <= prompt.maximum < total.maximum == dataset.longest


@pytest.mark.parametrize(("held_out", "warned"), [(15, True), (16, False)])
def test_few_validation_rows_are_told_before_training(
    encoder: Encoder, tmp_path: Path, held_out: int, warned: bool
) -> None:
    """With so few the verdict's gates stay undecided."""
    dataset = built(tmp_path, encoder, chat_pairs(60), chat_pairs(held_out, seed=1))
    assert any("can hardly pass its gates" in warning for warning in dataset.warnings) is warned


@pytest.mark.parametrize("held_out", [None, 25])
def test_tokens_are_of_the_same_pairs(encoder: Encoder, tiny_model: Path, tmp_path: Path, held_out: int | None) -> None:
    """Row by row, on both sides, whether or not validation has data of its own."""
    import datasets

    tokenizer = load_tokenizer(tiny_model)
    built(tmp_path, encoder, text_pairs(60), held_out and text_pairs(held_out, seed=1))
    for side in ("train", "validation"):
        tokens = datasets.Dataset.from_file(str(tmp_path / "out" / f"{side}.arrow"))
        for row, ids in zip(written(tmp_path, side), tokens, strict=True):
            chosen = tokenizer(row["prompt"] + row["chosen"] + tokenizer.eos_token).input_ids
            assert ids["prompt_ids"] + ids["chosen_ids"] == chosen


def test_tokens_are_those_of_trl(encoder: Encoder, tiny_model: Path) -> None:
    """The lint measures what training will see, so it must tokenize exactly as TRL does."""
    from trl.data_utils import _tokenize

    from dporun_trainer.data.pairs import Pair

    tokenizer = load_tokenizer(tiny_model)
    for rows in (chat_pairs(5), text_pairs(5)):
        pairs = [Pair(**row) for row in rows]
        encoded = encoder.encode([encoder.render(pair) for pair in pairs], conversational=pairs[0].conversational)
        for pair, tokens in zip(pairs, encoded, strict=True):
            end = "" if pair.conversational else tokenizer.eos_token
            generation = {"add_generation_prompt": True} if pair.conversational else {}
            assert list(tokens.prompt) == _tokenize(tokenizer, pair.prompt, **generation)["input_ids"]
            response = pair.chosen + end if isinstance(pair.chosen, str) else pair.chosen
            assert list(tokens.chosen) == _tokenize(tokenizer, pair.prompt + response)["input_ids"]


def test_calls_of_tools_are_responses_without_a_model_too(tmp_path: Path) -> None:
    def row(fruit: str) -> dict[str, Any]:
        calls = [[{"function": {"name": "look", "arguments": {"what": what}}}] for what in (fruit, "no")]
        chosen, rejected = ([{"role": "assistant", "tool_calls": call}] for call in calls)
        return {"prompt": [{"role": "user", "content": f"what is {fruit}"}], "chosen": chosen, "rejected": rejected}

    dataset = built(tmp_path, Characters(), [row("lima"), row("apple")], chat_pairs(25, seed=1), max_length=256)
    assert dataset.lint.train.alike_when_truncated == 0
    assert dataset.train_rows == 2


def test_scores_are_summed_up(encoder: Encoder, tmp_path: Path) -> None:
    scores = [(5, 3), (4, 4), (1, 2), (8, 1)]
    rows = [row | {"score_chosen": chosen, "score_rejected": rejected}
            for row, (chosen, rejected) in zip(text_pairs(4), scores, strict=True)]  # fmt: skip
    dataset = built(tmp_path, encoder, rows, text_pairs(25, seed=1))
    assert dataset.lint.train.scores == ScoreFacts(pairs=4, mean_margin=2, ties=1, reversed=1)
    warning = "a rejected response with a higher score than the chosen one: 1 of 4 rows (row 3 of train.jsonl)"
    assert warning in dataset.warnings


def test_training_on_messages_and_validating_on_text_is_refused(encoder: Encoder, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"has chat messages, .* has text") as raised:
        built(tmp_path, encoder, chat_pairs(3), text_pairs(3))
    assert raised.value.exit_code is ExitCode.DATA_INVALID


def test_split_keeps_all_rows_of_a_prompt_on_one_side(encoder: Encoder, tmp_path: Path) -> None:
    rows = [row | {"chosen": f"{row['chosen']} {n}"} for row in text_pairs(40) for n in range(3)]
    dataset = built(tmp_path, encoder, rows, validationFraction=0.25)
    train, held = written(tmp_path), written(tmp_path, "validation")
    assert (dataset.train_rows, dataset.validation_rows) == (90, 30) == (len(train), len(held))
    assert not {row["prompt"] for row in train} & {row["prompt"] for row in held}
    assert sorted(map(json.dumps, train + held)) == sorted(map(json.dumps, rows))


def test_split_keeps_near_copies_of_a_prompt_on_one_side(encoder: Encoder, tmp_path: Path) -> None:
    """One that differs in its case or spaces, or in a word of many, would be validated on what was trained."""
    rows = [row | {"prompt": text} for row in text_pairs(40) for text in (row["prompt"], f" {row['prompt'].upper()}")]
    built(tmp_path, encoder, rows, validationFraction=0.25)
    train, held = (
        {row["prompt"].strip().lower() for row in written(tmp_path, side)} for side in ("train", "validation")
    )
    assert len(held) == 10
    assert not train & held


def test_groups_are_held_out_whole(encoder: Encoder, tmp_path: Path) -> None:
    rows = [row | {"topic": number % 8} for number, row in enumerate(text_pairs(40))]
    dataset = built(tmp_path, encoder, rows, groupBy="topic", validationFraction=0.25)
    topics = {row["prompt"]: row["topic"] for row in rows}
    train, held = ({topics[row["prompt"]] for row in written(tmp_path, side)} for side in ("train", "validation"))
    assert dataset.validation_rows == 10
    assert (len(train), len(held)) == (6, 2)
    assert not train & held


def test_a_group_must_be_named_and_there_must_be_two(encoder: Encoder, tmp_path: Path) -> None:
    rows = [row | {"topic": "all"} for row in text_pairs(10)]
    with pytest.raises(RunError, match=r"all rows have the same topic \(dataset.groupBy\)"):
        built(tmp_path, encoder, rows, groupBy="topic")
    with pytest.raises(RunError, match=r"no subject \(dataset.groupBy\) among the columns"):
        built(tmp_path, encoder, rows, groupBy="subject")


def test_prompts_of_several_groups_are_told(encoder: Encoder, tmp_path: Path) -> None:
    rows = [row | {"chosen": f"{row['chosen']} {n}", "topic": n} for row in text_pairs(40) for n in range(4)]
    dataset = built(tmp_path, encoder, rows, groupBy="topic", validationFraction=0.25)
    assert dataset.report.leaked_prompts == 40
    assert any("prompts that training has as well" in warning for warning in dataset.warnings)


def test_a_wrong_file_is_not_read_to_its_end(encoder: Encoder, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"1000 of 1000 rows cannot be used: an empty chosen"):
        built(tmp_path, encoder, [{"prompt": "p", "chosen": "", "rejected": "r"}] * 1200)


def test_bad_rows_first_do_not_end_what_lets_all_pass(encoder: Encoder, tmp_path: Path) -> None:
    rows = [{"prompt": "p", "chosen": "", "rejected": "r"}] * 1001 + text_pairs(30)
    dataset = built(tmp_path, encoder, rows, invalidRows={"maxFraction": 1})
    assert dataset.report.train.facts.rows == 1031
    assert dataset.train_rows + dataset.validation_rows == 30


def test_a_few_bad_rows_of_many_are_left_out(encoder: Encoder, tmp_path: Path) -> None:
    """The most used set of human preferences has 5 rows of 2,312 whose response is empty."""
    rows = [*text_pairs(300), {"prompt": "what is red", "chosen": "", "rejected": "a fruit"}]
    dataset = built(tmp_path, encoder, rows)
    assert dataset.train_rows + dataset.validation_rows == 300
    assert dataset.report.train.facts.dropped == {DropReason.INVALID: 1}
    assert 1 <= len(dataset.report.train.samples) <= 5
    assert "left out, an empty chosen: 1 of 301 rows (row 301 of train.jsonl)" in dataset.warnings


def test_nothing_left_says_why(encoder: Encoder, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no pair is left for training: 5 as Leak left out"):
        built(tmp_path, encoder, text_pairs(5), text_pairs(5), leaks="Drop")


def test_split_depends_on_the_seed_and_not_on_the_order(encoder: Encoder, tmp_path: Path) -> None:
    rows = text_pairs(40)

    def held(name: str, rows: list[Any], seed: int) -> set[str]:
        built(tmp_path / name, encoder, rows, seed=seed)
        return {row["prompt"] for row in written(tmp_path / name, "validation")}

    assert held("a", rows, 1) == held("b", rows[::-1], 1) != held("c", rows, 2)


@pytest.mark.parametrize(("fraction", "expected"), [(0.001, 1), (0.999, 4)])
def test_split_leaves_a_row_on_each_side(encoder: Encoder, tmp_path: Path, fraction: float, expected: int) -> None:
    assert built(tmp_path, encoder, text_pairs(5), validationFraction=fraction).validation_rows == expected


def test_one_prompt_cannot_be_split(encoder: Encoder, tmp_path: Path) -> None:
    rows = [{"prompt": "what is red", "chosen": f"color {n}", "rejected": "fruit"} for n in range(5)]
    with pytest.raises(RunError, match="all rows have the same prompt") as raised:
        built(tmp_path, encoder, rows)
    assert "dataset.validation" in str(raised.value.hint)


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ([{"prompt": "what is red", "chosen": "color", "rejected": "fruit"}], "there is only one pair"),
        ([{"prompt": text, "chosen": "color", "rejected": "fruit"} for text in ("what is red", "What is  red")],
         "the prompts of all rows are nearly the same"),
        ([{"prompt": f"what is {n}", "responses": ["color", "fruit"], "scores": [1, 1]} for n in range(3)],
         "no pair is left for training: none left out; rows skipped for candidates of which none is better"),
    ],
    ids=["one", "near", "ties"],
)  # fmt: skip
def test_why_nothing_can_be_held_out(encoder: Encoder, tmp_path: Path, rows: list[Any], why: str) -> None:
    with pytest.raises(RunError, match=why):
        built(tmp_path, encoder, rows)


@pytest.mark.parametrize(("groups", "warned"), [(2, True), (10, False)])
def test_much_more_held_out_than_wanted_is_told(encoder: Encoder, tmp_path: Path, groups: int, warned: bool) -> None:
    rows = [row | {"topic": number % groups} for number, row in enumerate(text_pairs(40))]
    dataset = built(tmp_path, encoder, rows, groupBy="topic")
    warning = (
        "20 of 40 prompts are held out, 50% where dataset.validationFraction asks for 10%, because rows with the same "
        "topic (dataset.groupBy) stay together"
    )
    assert (warning in dataset.warnings) is warned
    assert any("are held out" in one for one in dataset.warnings) is warned


def test_several_pairs_of_a_row_are_one_row(encoder: Encoder, tmp_path: Path) -> None:
    answers = [f"{n} a color " * 60 for n in range(4)]
    row = {"prompt": "what is red", "responses": answers, "scores": [1, 2, 3, 4]}
    dataset = built(tmp_path, encoder, [row], chat_pairs(25), candidates={"pairs": "All"})
    assert dataset.lint.train.truncated == 6
    assert "responses that dpo.maxLength (64 tokens) cuts: 1 of 1 rows (row 1 of train.jsonl)" in dataset.warnings


def test_fingerprint_follows_rows_and_their_order(encoder: Encoder, tmp_path: Path) -> None:
    rows, other = text_pairs(10), text_pairs(5, seed=1)
    prints = {
        built(tmp_path / "a", encoder, rows, other).fingerprint,
        built(tmp_path / "b", encoder, rows, other).fingerprint,
        built(tmp_path / "c", encoder, rows[::-1], other).fingerprint,
        built(tmp_path / "d", encoder, rows[1:], other).fingerprint,
    }
    assert len(prints) == 3


def test_empty_file_and_too_short_max_length_are_errors(encoder: Encoder, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="has no rows"):
        built(tmp_path, encoder, [])
    with pytest.raises(RunError, match=r"every prompt is longer than dpo\.maxLength \(4 tokens\)"):
        built(tmp_path, encoder, text_pairs(5), max_length=4)


def test_messages_need_a_chat_template(tiny_model: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(tiny_model)
    tokenizer.chat_template = None
    with pytest.raises(RunError, match="no chat template") as raised:
        built(tmp_path, Encoder(tokenizer), chat_pairs(5))
    assert raised.value.reason is Reason.MODEL_INVALID
    assert built(tmp_path, Encoder(tokenizer), text_pairs(5)).train_rows
