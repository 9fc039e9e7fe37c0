"""Train the runs of this folder for real: python examples/unhealthy/build.py [NAME ...], from the repository's root.

Each run is what its dporun.yaml says, trained with plain TRL on the tiny model, on one CPU thread. What a foreign run
would leave for ``dporun-trainer diagnose`` is kept: log_history.json and training_config.json. The data of two runs is
made here from that of examples/tiny: a handful of rows for overfit, swapped labels for confuse.
"""

import importlib.metadata
import json
import math
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import yaml
from datasets import load_dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
TINY_DATA = ROOT / "examples/tiny/data/train.jsonl"
RUNS = ("healthy", "overfit", "underfit", "diverge", "confuse")
OVERFIT_ROWS = 80
CONFUSE_ROWS = 120


def build_data() -> None:
    """Write the two data sets that make a run ill."""
    rows = [json.loads(line) for line in TINY_DATA.read_text(encoding="utf-8").splitlines()]
    noisy = [_swapped(row) if index % 5 == 0 else row for index, row in enumerate(rows[:OVERFIT_ROWS])]
    _write_jsonl(HERE / "overfit/train.jsonl", noisy)
    _write_jsonl(HERE / "confuse/train.jsonl", [_swapped(row) for row in rows[:CONFUSE_ROWS]])


def train(name: str) -> None:
    """Train one run and keep its log history and configuration."""
    torch.set_num_threads(1)
    spec = yaml.safe_load((HERE / name / "dporun.yaml").read_text(encoding="utf-8"))["spec"]
    training, lora, dpo = spec["training"], spec["lora"], spec["dpo"]
    model = ROOT / spec["model"]["uri"]
    values: dict[str, Any] = {
        "learning_rate": float(training["learningRate"]),
        "num_train_epochs": training["epochs"],
        "per_device_train_batch_size": training["perDeviceBatchSize"],
        "gradient_accumulation_steps": training["gradientAccumulationSteps"],
        "max_grad_norm": training["maxGradNorm"],
        "lr_scheduler_type": training["lrScheduler"],
        "logging_steps": training["loggingSteps"],
        "warmup_steps": 0.1,
        "weight_decay": 0.0,
        "seed": 42,
        "beta": dpo["beta"],
        "max_length": dpo["maxLength"],
        "loss_type": ["sigmoid"],
        "label_smoothing": 0.0,
    }
    with tempfile.TemporaryDirectory() as folder:
        files = {"train": str(ROOT / spec["dataset"]["train"]), "validation": str(ROOT / spec["dataset"]["validation"])}
        data = load_dataset("json", data_files=files, cache_dir=f"{folder}/cache")
        trainer = DPOTrainer(
            AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32),
            args=DPOConfig(
                output_dir=folder,
                use_cpu=True,
                bf16=False,
                gradient_checkpointing=False,
                disable_dropout=False,
                per_device_eval_batch_size=20,
                eval_strategy="epoch",
                save_strategy="no",
                logging_nan_inf_filter=False,
                report_to="none",
                disable_tqdm=True,
                **values,
            ),
            train_dataset=data["train"],
            eval_dataset=data["validation"],
            processing_class=AutoTokenizer.from_pretrained(model),
            peft_config=LoraConfig(
                r=lora["rank"],
                lora_alpha=lora["alpha"],
                lora_dropout=lora["dropout"],
                target_modules="all-linear",
                task_type="CAUSAL_LM",
            ),
        )
        trainer.train()
    history = [{key: _json_value(value) for key, value in entry.items()} for entry in trainer.state.log_history]
    (HERE / name / "log_history.json").write_text(
        "[\n" + ",\n".join(json.dumps(entry, allow_nan=False) for entry in history) + "\n]\n", encoding="utf-8"
    )
    values["lora"] = {"r": lora["rank"], "lora_alpha": lora["alpha"], "lora_dropout": lora["dropout"]}
    values["versions"] = {
        package: importlib.metadata.version(package) for package in ("trl", "transformers", "peft", "torch")
    }
    (HERE / name / "training_config.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def _swapped(row: dict[str, Any]) -> dict[str, Any]:
    return row | {"chosen": row["rejected"], "rejected": row["chosen"]}


def _json_value(value: Any) -> Any:
    """Shorten numbers to what a log needs; NaN and the infinities become strings, as JSON has no word for them."""
    if not isinstance(value, float):
        return value
    return float(f"{value:.6g}") if math.isfinite(value) else str(value)


def _write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    build_data()
    for run in sys.argv[1:] or RUNS:
        train(run)
        print(f"built {HERE / run}")
