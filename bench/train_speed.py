"""CPU seconds of a DPO run: TRL 1.16 as it comes, and this project's trainer, on the same model and pairs.

    PYTHONPATH=tests python bench/train_speed.py --repeats 5

One process, one thread, both without DeepSpeed's start; ours includes computing the reference log-probabilities.
Process time is compared, so other work on the machine matters little; arms alternate. Prints one JSON document.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer

from dporun_testing import tiny_model, training

EPOCHS = 2


def main() -> None:
    """Measure both arms and print medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--hidden-size", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--pairs", type=int, default=48)
    arguments = parser.parse_args()
    seconds: dict[str, list[float]] = {"trl": [], "dporun": []}
    with tempfile.TemporaryDirectory() as name, training.single_process():
        root = Path(name)
        model = tiny_model.save_tiny_model(root / "model", hidden_size=arguments.hidden_size, layers=arguments.layers)
        arms: dict[str, Callable[[Path], Callable[[], Any]]] = {
            "trl": lambda place: plain_trl(model, place, arguments.pairs),
            "dporun": lambda place: ours(model, place, arguments.pairs),
        }
        for repeat in range(arguments.repeats + 1):
            for arm, prepare in arms.items():
                place = root / f"{arm}-{repeat}"
                place.mkdir()
                run = prepare(place)
                begin = time.process_time()
                run()
                if repeat > 0:  # the first of each warms up
                    seconds[arm].append(time.process_time() - begin)
    medians = {arm: statistics.median(values) for arm, values in seconds.items()}
    print(
        json.dumps({**vars(arguments), "cpu_seconds": seconds, "ratio": medians["trl"] / medians["dporun"]}, indent=2)
    )


def plain_trl(model: Path, place: Path, pairs: int) -> Callable[[], Any]:
    """TRL's defaults, with the same batches and validations."""

    def run() -> None:
        os.environ.pop("ACCELERATE_USE_DEEPSPEED", None)
        DPOTrainer(
            model=AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32),
            args=DPOConfig(
                output_dir=str(place),
                num_train_epochs=EPOCHS,
                per_device_train_batch_size=2,
                per_device_eval_batch_size=2,
                gradient_accumulation_steps=2,
                eval_strategy="epoch",
                save_strategy="epoch",
                bf16=False,
                use_cpu=True,
                report_to="none",
                disable_tqdm=True,
                max_length=128,
            ),
            train_dataset=Dataset.from_list(tiny_model.chat_pairs(pairs)),
            eval_dataset=Dataset.from_list(tiny_model.chat_pairs(pairs // 4, seed=1)),
            processing_class=AutoTokenizer.from_pretrained(model),
            peft_config=LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"),
        ).train()

    return run


def ours(model: Path, place: Path, pairs: int) -> Callable[[], Any]:
    """The worker's whole attempt: reference log-probabilities, checkpoints, charts and samples included."""
    config = training.a_config("bench", training={"epochs": EPOCHS, "logging_steps": 10})
    directory = training.prepare(config, place, model, train=pairs, validation=pairs // 4)

    def run() -> None:
        os.environ["ACCELERATE_USE_DEEPSPEED"] = "true"
        training.attempt(config, directory)

    return run


if __name__ == "__main__":
    main()
