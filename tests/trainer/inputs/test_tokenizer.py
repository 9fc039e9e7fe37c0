"""Tokenizers that are refused, and what a user reads about them."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from dporun_api.v1alpha1.reasons import Reason
from dporun_testing.models import edit_json
from dporun_trainer.errors import RunError
from dporun_trainer.inputs.tokenizer import FAST, check_tokenizer

CONFIG = "tokenizer_config.json"
ROWS = 384
"""Of the tiny model's embedding."""


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model that a test may change."""
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def missing(model: Path) -> None:
    (model / FAST).unlink()
    (model / CONFIG).unlink()


def torn(model: Path) -> None:
    (model / FAST).write_text('{"version": ')


def sentencepiece(model: Path) -> None:
    (model / FAST).unlink()
    (model / "tokenizer.model").write_bytes(b"\x0a\x0e\x0a\x05<unk>")
    edit_json(model / CONFIG, tokenizer_class="LlamaTokenizer")


def tiktoken(model: Path) -> None:
    (model / FAST).unlink()
    (model / "qwen.tiktoken").write_text("IQ== 0\n")
    edit_json(model / CONFIG, tokenizer_class="QWenTokenizer", auto_map={"AutoTokenizer": ["tokens.Tokenizer", None]})


def own_code(model: Path) -> None:
    (model / FAST).unlink()
    edit_json(model / CONFIG, tokenizer_class="OurTokenizer", auto_map={"AutoTokenizer": ["tokens.OurTokenizer", None]})


def no_eos(model: Path) -> None:
    edit_json(model / CONFIG, eos_token=None)


def large_vocabulary(model: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.add_tokens([f"<extra-{n}>" for n in range(3)])
    tokenizer.save_pretrained(model)


SAVE = "load it once where it can be read, and save it with save_pretrained: that writes tokenizer.json."


@pytest.mark.parametrize(
    ("damage", "message", "hint"),
    [
        (
            missing,
            "there is no tokenizer in MODEL (tokenizer.json is missing)",
            "Add tokenizer.json and tokenizer_config.json of the model that this one was tuned from.",
        ),
        (
            torn,
            "the tokenizer in MODEL cannot be read: Expecting value: line 1 column 13 (char 12)",
            "Fetch tokenizer.json again.",
        ),
        (
            sentencepiece,
            "the tokenizer in MODEL is only there as tokenizer.model, a form that this image does not read",
            f"Add tokenizer.json: many repositories have it beside; else {SAVE}",
        ),
        (
            tiktoken,
            "the tokenizer in MODEL is only there as qwen.tiktoken, a form that this image does not read",
            f"Add tokenizer.json: many repositories have it beside; else {SAVE}",
        ),
        (
            own_code,
            "the tokenizer in MODEL needs code that comes with it, which is never run",
            f"Add tokenizer.json: {SAVE}",
        ),
        (
            no_eos,
            "the tokenizer in MODEL has no EOS token, so that no answer would end",
            'Set "eos_token" in its tokenizer_config.json.',
        ),
        (
            large_vocabulary,
            "the tokenizer in MODEL has token ids up to 386, the model's embedding has 384 rows",
            "Use the tokenizer that belongs to the model, or resize the model's embedding.",
        ),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_refused(model: Path, damage: Callable[[Path], None], message: str, hint: str) -> None:
    damage(model)
    with pytest.raises(RunError) as raised:
        check_tokenizer(model, ROWS)
    assert raised.value.message.replace(str(model), "MODEL") == message
    assert raised.value.hint == hint
    assert raised.value.reason is Reason.MODEL_INVALID


def test_of_the_model(tiny_model: Path) -> None:
    check_tokenizer(tiny_model, ROWS)
