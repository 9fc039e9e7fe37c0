"""A random two-layer Llama with a byte-level tokenizer and a chat template, and preference pairs for it.

Everything is made in a moment and from a seed, so a test needs no download. Torch is imported on use.
"""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_TEXT = (
    "apple banana cherry delta echo foxtrot golf hotel india juliet kilo lima red green blue one two three the is a of "
    "what which color fruit letter please answer question yes no good bad"
)
WORDS = tuple(_TEXT.split())
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def save_tiny_model(folder: Path, *, seed: int = 0, hidden_size: int = 32, layers: int = 2) -> Path:
    """Write a model (safetensors, float32) and its tokenizer to ``folder`` and return it."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    chance = random.Random(seed)
    bpe = Tokenizer(models.BPE(unk_token=None))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=384,
        special_tokens=["<|pad|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator([_words(chance, 50) for _ in range(100)] + ["user assistant system\n"] * 50, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, pad_token="<|pad|>", eos_token="<|im_end|>")
    tokenizer.chat_template = CHAT_TEMPLATE
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=hidden_size,
            intermediate_size=2 * hidden_size,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=512,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=None,
        )
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def chat_pairs(count: int, *, seed: int = 0) -> list[dict[str, Any]]:
    """Preference pairs as chat messages; the chosen answer is polite and names the subject, the rejected one is not."""
    chance = random.Random(seed)
    rows = []
    for _ in range(count):
        word = chance.choice(WORDS)
        rows.append(
            {
                "prompt": [{"role": "user", "content": f"what is {word} {_words(chance, chance.randint(3, 12))}"}],
                "chosen": [{"role": "assistant", "content": f"good {word} {_words(chance, chance.randint(2, 8))}"}],
                "rejected": [{"role": "assistant", "content": f"bad no {_words(chance, chance.randint(2, 8))}"}],
            }
        )
    return rows


def text_pairs(count: int, *, seed: int = 0) -> list[dict[str, Any]]:
    """Build the same pairs as plain text."""
    return [{side: messages[0]["content"] for side, messages in row.items()} for row in chat_pairs(count, seed=seed)]


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """Write ``rows`` as JSONL and return ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def _words(chance: random.Random, count: int) -> str:
    return " ".join(chance.choice(WORDS) for _ in range(count))
