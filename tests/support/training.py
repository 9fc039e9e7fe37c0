"""Runs of the training part alone: what prepare would leave, and the launcher as a process of its own."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import tiny_model

from dporun_trainer.contract.config import RunConfig
from dporun_trainer.contract.results import DatasetSummary
from dporun_trainer.prepared import DataFacts, Lengths, LintReport, ModelFacts, Prepared

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}


def a_config(name: str = "run", **sections: Any) -> RunConfig:
    """A quick run: dropout on, two epochs of four steps; ``sections`` replace fields of the RunConfig."""
    training = {
        "learning_rate": 5e-3,
        "per_device_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "logging_steps": 1,
        "epochs": 2,
    }
    fields: dict[str, Any] = {
        "run": {"name": name},
        "model": {"uri": "pvc://models/tiny"},
        "dataset": {"train": "pvc://data/train.jsonl"},
        "dpo": {"max_length": 128} | sections.pop("dpo", {}),
        "lora": {"rank": 4, "alpha": 8, "dropout": 0.1} | sections.pop("lora", {}),
        "training": training | sections.pop("training", {}),
        "evaluation": {"enabled": False},
    }
    return RunConfig.model_validate(fields | sections)


def prepare(config: RunConfig, root: Path, model: Path, *, train: int = 16, validation: int = 6) -> Path:
    """Leave in the run's directory what prepare leaves, and return the directory."""
    directory = root / config.run.directory
    inputs = directory / "inputs"
    train_path = tiny_model.write_rows(inputs / "train.jsonl", tiny_model.chat_pairs(train))
    validation_path = tiny_model.write_rows(inputs / "validation.jsonl", tiny_model.chat_pairs(validation, seed=1))
    lengths = Lengths(mean=40, p50=40, p90=50, p99=60, maximum=60)
    facts = DataFacts(source="train", rows=train, kept=train, prompts=train, conversational=True, total=lengths)
    prepared = Prepared(
        key="0" * 64,
        model_path=str(model),
        model=ModelFacts(
            architecture="LlamaForCausalLM",
            fingerprint="a" * 64,
            parameters=50_000,
            dtype="float32",
            bytes=200_000,
            hidden_size=32,
            layers=2,
            vocabulary=384,
            lora_modules=14,
            lora_parameters=5_000,
        ),
        train_path=str(train_path),
        validation_path=str(validation_path),
        dataset=DatasetSummary(train_rows=train, validation_rows=validation, fingerprint="f" * 64),
        lint=LintReport(train=facts),
    )
    (inputs / "prepared.json").write_text(prepared.to_json(indent=2), encoding="utf-8")
    (root / f"{config.run.name}.json").write_text(config.to_json(), encoding="utf-8")
    return directory


def start(config: RunConfig, root: Path, *, command: str = "train", **environment: str) -> "subprocess.Popen[str]":
    """Start ``dporun-trainer train`` for a prepared run, without a status server."""
    words = [sys.executable, "-m", "dporun_trainer", command, "--port", "0"]
    return subprocess.Popen(
        [*words, "--config", str(root / f"{config.run.name}.json"), "--root", str(root)],
        env={**ENVIRONMENT, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def train(config: RunConfig, root: Path, **environment: str) -> tuple[int, str]:
    """Train a prepared run to its end; returns exit code and output."""
    process = start(config, root, **environment)
    output, _ = process.communicate()
    return process.returncode, output


def stop_at(config: RunConfig, root: Path, seen: Callable[[str], bool], **environment: str) -> tuple[int, str]:
    """Train, and send SIGTERM to the launcher when a line of its output is ``seen``."""
    process = start(config, root, **environment)
    assert process.stdout is not None
    output, sent = [], False
    for line in process.stdout:
        output.append(line)
        if not sent and seen(line):
            process.send_signal(signal.SIGTERM)
            sent = True
    return process.wait(), "".join(output)


def losses(directory: Path) -> list[tuple[int, str, float]]:
    """Steps and losses of the run's log, training and validation."""
    history: Sequence[dict[str, Any]] = json.loads((directory / "log_history.json").read_text())
    return [(entry["step"], name, entry[name]) for entry in history for name in ("loss", "eval_loss") if name in entry]
