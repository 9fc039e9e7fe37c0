"""Training sees the tokens that prepare looked at: TRL's own step, on what prepare wrote."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from trl import DPOConfig, DPOTrainer

from dporun_testing.tiny_model import chat_pairs, text_pairs, write_rows
from dporun_trainer.data.formats import read_pairs
from dporun_trainer.evaluation.scoring import encode_pair
from dporun_trainer.inputs.encoding import Encoder
from dporun_trainer.inputs.tokenizer import load_tokenizer
from dporun_trainer.training.pairs import load_pairs

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


@pytest.mark.parametrize("rows", [tool_pairs(), chat_pairs(3), text_pairs(3)], ids=["tools", "chat", "text"])
def test_tokens_are_those_of_prepare(rows: list[dict[str, Any]], tiny_model: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(tiny_model)
    tokenizer.chat_template = TEMPLATE
    path = tmp_path / "train.jsonl"
    path.write_text("".join(pair.line() + "\n" for pair in read_pairs(write_rows(tmp_path / "rows.jsonl", rows))))
    pairs = read_pairs(path)
    conversational = pairs[0].conversational
    loaded = load_pairs({"train": str(path)}, tmp_path / "cache", conversational=conversational)["train"]
    arguments = DPOConfig(output_dir=str(tmp_path), max_length=None, bf16=False, use_cpu=True)
    seen = DPOTrainer._prepare_dataset(
        SimpleNamespace(_tokenizer=tokenizer),  # type: ignore[arg-type]  all that it needs of a trainer
        loaded, tokenizer, arguments, "train",
    )  # fmt: skip
    encoder = Encoder(tokenizer)
    looked_at = encoder.encode([encoder.render(pair) for pair in pairs], conversational=conversational)
    for row, tokens, pair in zip(seen, looked_at, pairs, strict=True):
        assert row["prompt_ids"] + row["chosen_ids"] == list(tokens.chosen)
        assert row["prompt_ids"] + row["rejected_ids"] == list(tokens.rejected)
        scored = encode_pair(pair, tokenizer, max_length=None)
        assert scored
        assert list(scored.chosen.prompt + scored.chosen.completion) == list(tokens.chosen)
        assert list(scored.rejected.prompt + scored.rejected.completion) == list(tokens.rejected)


def test_the_first_rows_do_not_decide_what_the_last_may_have(tmp_path: Path) -> None:
    """The types that would be inferred are those of the first 10 MiB."""
    plain = chat_pairs(1)[0]
    long = plain | {"prompt": [{"role": "user", "content": "red " * 2**20}]}
    path = write_rows(tmp_path / "train.jsonl", [long, long, long, *tool_pairs()])
    written = "".join(pair.line() + "\n" for pair in read_pairs(path))
    path.write_text(written)
    loaded = load_pairs({"train": str(path)}, tmp_path / "cache", conversational=True)["train"]
    kept = [{key: value for key, value in row.items() if value is not None} for row in loaded]
    assert kept == [json.loads(line) for line in written.splitlines()]
