"""Pre-train the tiny model on the corpus and save it with its tokenizer, ready for `from_pretrained`.

    python examples/tiny/build_model.py [FOLDER] [--steps N]

One thread and a fixed seed: the same machine and versions give the same weights, bit for bit.
"""

import argparse
import math
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from corpus import conversations
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SEED = 0
STEPS = 1600
BATCH_SIZE = 32
LEARNING_RATE = 3e-3
WARMUP = 0.05
PAD, END, ROLES = "<|pad|>", "<|end|>", ["<|system|>", "<|user|>", "<|assistant|>"]
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SAMPLES = ["What is the capital of France?", "How do I make tea?", "Quiz: What is 3 + 4?", "Count from 1 to 5."]


def build_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer without a beginning-of-sequence token; `<|end|>` ends every message."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=2048,
        special_tokens=[PAD, END, *ROLES],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        chat_template=CHAT_TEMPLATE,
        model_max_length=256,
        clean_up_tokenization_spaces=False,
    )


def build_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """An untrained Llama of about a million parameters."""
    torch.manual_seed(SEED)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, max_new_tokens=64
    )
    return model


Example = tuple[list[int], list[int]]  # input ids, labels


def encode(tokenizer: PreTrainedTokenizerFast, question: str, reply: str) -> Example:
    """One conversation as input ids and labels, of equal length; only the answer is learnt."""
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": reply}]
    prompt = tokenizer.apply_chat_template(messages[:1], add_generation_prompt=True, return_dict=False)
    ids = tokenizer.apply_chat_template(messages, return_dict=False)
    return ids, [-100] * len(prompt) + ids[len(prompt) :]


def batches(examples: list[Example], pad: int, steps: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """`steps` batches of (input ids, labels), each (batch, length); similar lengths go together."""
    generator = torch.Generator().manual_seed(SEED)
    made = 0
    while made < steps:
        noise = torch.rand(len(examples), generator=generator).tolist()
        order = sorted(range(len(examples)), key=lambda i: len(examples[i][0]) + 4 * noise[i])
        chunks = [order[i : i + BATCH_SIZE] for i in range(0, len(order), BATCH_SIZE)]
        for chunk in torch.randperm(len(chunks), generator=generator)[: steps - made].tolist():
            ids, labels = zip(*(examples[i] for i in chunks[chunk]), strict=True)
            yield _padded(ids, pad), _padded(labels, -100)
            made += 1


def _padded(rows: Iterable[list[int]], value: int) -> torch.Tensor:
    return torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=value)


def pretrain(model: LlamaForCausalLM, examples: list[Example], pad: int, steps: int) -> float:
    """Train for `steps` with AdamW, linear warm-up and cosine decay.

    Returns:
        The mean loss of the last tenth of the steps, in nats per answer token.

    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.01)
    warmup = max(1, round(WARMUP * steps))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min((step + 1) / warmup, 0.5 * (1 + math.cos(math.pi * step / steps))),
    )
    losses, started = [], time.monotonic()
    model.train()
    for step, (ids, labels) in enumerate(batches(examples, pad, steps), start=1):
        loss = model(input_ids=ids, attention_mask=(ids != pad).long(), labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if step % 50 == 0 or step == steps:
            print(f"step {step}/{steps}  loss {losses[-1]:.3f}  {time.monotonic() - started:.0f} s", flush=True)
    tail = losses[-max(1, steps // 10) :]
    return sum(tail) / len(tail)


def answer(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, question: str) -> str:
    """The model's greedy answer to one question."""
    messages = [{"role": "user", "content": question}]
    inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    with torch.no_grad():
        output = model.generate(**inputs, do_sample=False)
    return tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


def build(folder: Path, steps: int = STEPS) -> float:
    """Build tokenizer and model into `folder`; returns the final loss."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    pairs = conversations()
    tokenizer = build_tokenizer([text for pair in pairs for text in pair])
    examples = [encode(tokenizer, question, reply) for question, reply in pairs]
    model = build_model(tokenizer)
    print(f"{len(pairs)} conversations, {len(tokenizer)} tokens, {model.num_parameters()} parameters", flush=True)
    loss = pretrain(model, examples, tokenizer.pad_token_id, steps)
    model.eval()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    print(f"final loss {loss:.3f}, saved in {folder}")
    for question in SAMPLES:
        print(f"  {question}\n    {answer(model, tokenizer, question)}")
    return loss


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=Path(__file__).with_name("model"))
    parser.add_argument("--steps", type=int, default=STEPS)
    arguments = parser.parse_args()
    build(arguments.folder, arguments.steps)
