"""How fast prepare is: rows per second, seconds by phase and peak memory, on rows of about 600 tokens.

    PYTHONPATH=tests python bench/prepare.py --rows 100000

A tokenizer of 8,000 tokens is trained on texts of the same words, so that tokens are about as long as in real models.
The command runs as in a pod, in a process of its own. Writes build/bench/prepare.json, and prints it.
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from dporun_api.results import Progress
from dporun_testing import tiny_model

CONFIG = {"lora": {"rank": 4}, "dpo": {"maxLength": 2048}, "evaluation": {"enabled": False}}
WORDS = 20_000
VOCABULARY = 8_000
TEMPLATE = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request. Task:"
)
"""A beginning that all prompts share, as many data sets have one."""


def main() -> None:
    """Write the rows, run prepare once, and write what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--format", choices=["text", "chat"], default="chat")
    parser.add_argument("--output", type=Path, default=Path("build/bench/prepare.json"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        chance = random.Random(1)
        words = ["".join(chance.choices("aeioubcdfghklmnprstvwz", k=chance.randint(2, 9))) for _ in range(WORDS)]
        model = save_model(root / "model", [sentence(chance, words, 200) for _ in range(500)])
        data = root / "train.jsonl"
        with data.open("w", encoding="utf-8") as file:
            for row in rows(chance, words, arguments.rows, chat=arguments.format == "chat"):
                file.write(json.dumps(row) + "\n")
        result = measure(root, model, data)
    result |= {"rows": arguments.rows, "format": arguments.format, "cpus": len(os.sched_getaffinity(0))}
    result["rowsPerSecond"] = round(arguments.rows / result["seconds"], 1)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


def measure(root: Path, model: Path, data: Path) -> dict[str, object]:
    """Run prepare in a process of its own: seconds in all and by phase, and its largest resident size."""
    config = CONFIG | {"run": {"name": "bench"}, "model": {"uri": str(model)}, "dataset": {"train": str(data)}}
    (root / "run.json").write_text(json.dumps(config), encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "dporun_trainer",
        "prepare",
        "--config",
        str(root / "run.json"),
        "--root",
        str(root),
    ]
    phases: dict[str, float] = {}
    begin = last = time.monotonic()
    process = subprocess.Popen([*command, "--config", str(root / "run.json")])
    while process.poll() is None:
        time.sleep(0.1)
        now = time.monotonic()
        phase = said(root).partition(" ")[0] or "starting"
        phases[phase] = phases.get(phase, 0.0) + now - last
        last = now
    if process.returncode:
        raise SystemExit(process.returncode)
    return {
        "seconds": round(time.monotonic() - begin, 1),
        "secondsByPhase": {phase: round(seconds, 1) for phase, seconds in phases.items()},
        "cpuSeconds": round(sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2]), 1),
        "peakMiB": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024,
        "dataMiB": data.stat().st_size // 2**20,
    }


def said(root: Path) -> str:
    """The line of progress that prepare shows now."""
    for path in root.glob("*/progress.json"):
        return Progress.model_validate_json(path.read_bytes()).detail or ""
    return ""


def save_model(folder: Path, texts: list[str]) -> Path:
    """A tiny model whose tokenizer has learned from some texts."""
    tiny_model.save_tiny_model(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder).train_new_from_iterator(texts, VOCABULARY, show_progress=False)
    tokenizer.save_pretrained(folder)
    config = AutoConfig.from_pretrained(folder)
    config.vocab_size = len(tokenizer)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def rows(chance: random.Random, words: list[str], count: int, *, chat: bool) -> Iterator[dict[str, object]]:
    """Pairs of about 600 tokens: prompts of 40 to 260 words, responses of 130 to 400."""
    for _ in range(count):
        prompt = f"{TEMPLATE} {sentence(chance, words, chance.randint(40, 260))}"
        chosen, rejected = (sentence(chance, words, chance.randint(130, 400)) for _ in range(2))
        if chat:
            responses = ([{"role": "assistant", "content": text}] for text in (chosen, rejected))
            yield dict(
                zip(("prompt", "chosen", "rejected"), ([{"role": "user", "content": prompt}], *responses), strict=True)
            )
        else:
            yield {"prompt": prompt, "chosen": f" {chosen}", "rejected": f" {rejected}"}


def sentence(chance: random.Random, words: list[str], count: int) -> str:
    """Some words, the first ones of the list more often than the later ones, as in a language (Zipf)."""
    return " ".join(words[int(len(words) ** chance.random()) - 1] for _ in range(count))


if __name__ == "__main__":
    main()
