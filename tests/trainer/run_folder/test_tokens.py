"""Tokens that prepare writes are those that TRL would make, and training maps them into memory."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import pyarrow
import pytest
from tokenizers.processors import TemplateProcessing
from trl import DPOConfig, DPOTrainer

from dporun_testing.tiny_model import chat_pairs, text_pairs, write_rows
from dporun_trainer.data.formats import read_pairs
from dporun_trainer.evaluation.scoring import encode_pair
from dporun_trainer.inputs.encoding import Encoder, measure
from dporun_trainer.inputs.tokenizer import load_tokenizer
from dporun_trainer.run_folder.tokens import COLUMNS, token_writer, tokenizer_digest

TEMPLATE = (
    "{%- if tools %}{{ '<|im_start|>tools ' + tools | tojson + '<|im_end|>' }}{% endif -%}"
    "{%- for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    # As that of Llama 3.1, which takes a key without a value for a call.
    "{%- if 'tool_calls' in message %}{{ message.tool_calls[0].function | tojson }}"
    "{%- else %}{{ message['content'] }}{% endif %}{{ '<|im_end|>' }}{% endfor -%}"
    "{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def tool_pairs() -> list[dict[str, Any]]:
    def call(arguments: dict[str, Any]) -> list[dict[str, Any]]:
        function = {"name": "look", "arguments": arguments}
        return [{"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": function}]}]

    asked = [{"role": "user", "content": "what is red"}]
    said = [{"role": "assistant", "content": "a color"}]
    tools = [{"type": "function", "function": {"name": "look", "description": "look at a color"}}]
    return [
        {"prompt": asked, "chosen": call({"color": "red"}), "rejected": said, "tools": tools},
        {"prompt": [*asked, *call({"fruit": 1}), {"role": "tool", "content": "yes"}], "chosen": said,
         "rejected": call({"what": ["red"]}), "tools": [*tools, {"function": {"name": "x", "parameters": {}}}]},
        {"prompt": asked, "chosen": said, "rejected": call({})},
    ]  # fmt: skip


def theirs(path: Path, tokenizer: Any, folder: Path, **options: Any) -> list[dict[str, Any]]:
    """The tokens that TRL makes of the pairs in a file."""
    pairs = [json.loads(line) for line in path.read_text().splitlines()]
    kind = datasets.Value("string") if isinstance(pairs[0]["prompt"], str) else datasets.Json()
    features = datasets.Features({**dict.fromkeys(("prompt", "chosen", "rejected"), kind)})
    features["tools"] = datasets.Value("string")
    loaded = datasets.Dataset.from_list([{"tools": None, **pair} for pair in pairs], features=features)
    arguments = DPOConfig(output_dir=str(folder), bf16=False, use_cpu=True, **options)
    trainer = SimpleNamespace(_tokenizer=tokenizer)
    seen = DPOTrainer._prepare_dataset(trainer, loaded, tokenizer, arguments, "train")  # type: ignore[arg-type]
    return [{name: row[name] for name in COLUMNS} for row in seen]


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("rows", [tool_pairs(), chat_pairs(40), text_pairs(40)], ids=["tools", "chat", "text"])
def test_tokens_are_those_of_trl(rows: list[dict[str, Any]], bos: bool, tiny_model: Path, tmp_path: Path) -> None:
    """Of the pairs that it would keep, in their order; and the evaluation scores the same."""
    tokenizer = load_tokenizer(tiny_model)
    tokenizer.chat_template = TEMPLATE
    if bos:
        tokenizer.bos_token = "<|im_start|>"
        special = [("<|im_start|>", tokenizer.bos_token_id)]
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single="<|im_start|> $A", special_tokens=special
        )
    pairs = read_pairs(write_rows(tmp_path / "rows.jsonl", rows))
    path = tmp_path / "train.jsonl"
    path.write_text("".join(pair.line() + "\n" for pair in pairs))
    encoder = Encoder(tokenizer)
    encoded = list(encoder.encode([encoder.render(pair) for pair in pairs], conversational=pairs[0].conversational))
    for length in (max(len(one.prompt) for one in encoded), 4096):  # the longest prompts are left out, or nothing is
        with token_writer(tmp_path / "train.arrow") as write:
            measured = [(one, measure(one, length)) for one in encoded]
            write(one.parts(measures.prompt) for one, measures in measured if not measures.too_long)
        ours = datasets.Dataset.from_file(str(tmp_path / "train.arrow"))
        wanted = theirs(path, tokenizer, tmp_path, max_length=length)
        assert list(ours) == wanted
        assert tuple(ours.column_names) == COLUMNS
        assert len(ours) == len(pairs) if length == 4096 else 0 < len(ours) < len(pairs)
    for pair, one in zip(pairs, encoded, strict=True):
        scored = encode_pair(pair, tokenizer, max_length=None)
        assert scored
        assert list(scored.chosen.prompt + scored.chosen.completion) == list(one.chosen)
        assert list(scored.rejected.prompt + scored.rejected.completion) == list(one.rejected)


def test_tokens_are_mapped_and_not_read(tmp_path: Path) -> None:
    with token_writer(tmp_path / "a.arrow") as write:
        for _ in range(20):
            write([([1] * 1000, [2] * 1000, [3] * 1000)] * 100)
        write([])
    before = pyarrow.total_allocated_bytes()
    tokens = datasets.Dataset.from_file(str(tmp_path / "a.arrow"))
    assert len(tokens) == 2000
    assert tokens[1999] == {"prompt_ids": [1] * 1000, "chosen_ids": [2] * 1000, "rejected_ids": [3] * 1000}
    assert pyarrow.total_allocated_bytes() - before < 2**20 < (tmp_path / "a.arrow").stat().st_size / 16


def test_unfinished_file_does_not_appear(tmp_path: Path) -> None:
    with pytest.raises(KeyError), token_writer(tmp_path / "a.arrow") as write:
        write([{}["killed"]])  # type: ignore[index]
    assert not (tmp_path / "a.arrow").exists()


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "a/tool.jinja"])
def test_digest_is_of_tokenizer_and_templates(tiny_model: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(tiny_model, tmp_path / "model")
    before = tokenizer_digest(tmp_path / "model")
    (tmp_path / "model" / "config.json").write_text("{}")
    assert tokenizer_digest(tmp_path / "model") == before
    (tmp_path / "model" / name).parent.mkdir(exist_ok=True)
    with (tmp_path / "model" / name).open("a") as file:
        file.write(" ")
    assert tokenizer_digest(tmp_path / "model") != before
