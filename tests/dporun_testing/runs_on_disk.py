"""The directory of a finished run, made of the artefacts of a run that was really trained."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from dporun_api import run_folder as layout
from dporun_api.results import DatasetSummary, EvaluationSummary, Progress, Stage
from dporun_api.run_config import RunConfig
from dporun_testing.paths import UNHEALTHY
from dporun_trainer.diagnosis.health import diagnose
from dporun_trainer.diagnosis.verdict import judge
from dporun_trainer.run_folder.prepared import DataFacts, Lengths, LintReport, ModelFacts, Prepared

HEALTHY = UNHEALTHY / "healthy"


def finished_run(directory: Path, *, source: Path = HEALTHY, answer: str = "Certainly! It is better.") -> Path:
    """Write what a run leaves, evaluated well.

    Args:
        directory: to be made.
        source: example whose log history and manifest are taken.
        answer: of the tuned model, to the example in which it is better.

    """
    config = _config(source)
    history = json.loads((source / "log_history.json").read_text(encoding="utf-8"))
    training = json.loads((source / "training_config.json").read_text(encoding="utf-8"))
    evaluation = EvaluationSummary(
        accuracy=0.92, accuracy_low=0.85, accuracy_high=0.97, avg_chosen_reward=2.45, avg_rejected_reward=-1.23,
        reward_margin=3.68, forgetting=0.034, better_than_base=True, examples=60,
    )  # fmt: skip
    compared = {"compared": 5, "better": 2, "worse": 2, "equal": 1, "better_than_base": True, "better_p_value": 0.5}
    health = diagnose(history, config)
    verdict = judge(evaluation, config.evaluation.gates, health)
    _write(directory / layout.LOG_HISTORY, history)
    _write(directory / layout.TRAINING_CONFIG, training | {"config": config.model_dump(mode="json", by_alias=True)})
    _write(
        directory / layout.TRAINING_METRICS, {"train_loss": 0.3, "eval_loss": 0.02, "train_runtime": 518.5, "epoch": 2}
    )
    _write(directory / layout.EVALUATION_METRICS, evaluation.model_dump(mode="json") | compared)
    _write(directory / layout.COMPARISON_RESULTS, {"summary": compared, "examples": _examples(answer)})
    _write(directory / layout.FORGETTING, _FORGETTING)
    for path, document in (
        (layout.HEALTH, health),
        (layout.VERDICT, verdict),
        (layout.PROGRESS, Progress(stage=Stage.REPORTING, step=150, total_steps=150)),
        (layout.PREPARED, _prepared()),
    ):
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_text(document.to_json(), encoding="utf-8")
    return directory


def _config(source: Path) -> RunConfig:
    manifest = yaml.safe_load((source / "dporun.yaml").read_text(encoding="utf-8"))
    spec = manifest["spec"]
    return RunConfig.model_validate(
        {
            "run": {"name": manifest["metadata"]["name"], "uid": "1a2b3c4d-0000"},
            "manifest": manifest,
            "image": "dporun-trainer:0.1.0",
            **{section: spec[section] for section in ("model", "dataset", "dpo", "lora", "training")},
        }
    )


def _examples(answer: str) -> list[dict[str, Any]]:
    def example(index: int, prompt: str, better: str, margin: float, tuned: str) -> dict[str, Any]:
        return {
            "index": index, "prompt": prompt, "chosen": "Certainly! It is good.", "rejected": "Go away.",
            "base": "It is good.", "tuned": tuned, "better": better, "why": f"The {better} answer is nearer.",
            "rewards": {"chosen": margin, "rejected": 0.0, "margin": margin},
        }  # fmt: skip

    return [
        example(0, "What is better?", "tuned", 2.0, answer),
        example(1, "What is better, too?", "tuned", 3.0, "Certainly! It is good."),
        example(2, "What is equal?", "tie", 1.0, "It is good."),
        example(3, "What is worse?", "base", 0.5, "Go away."),
        example(4, "What is worse still?", "base", -0.5, "Go away, you."),
        {"index": 5, "prompt": "What was not asked?", "chosen": "a", "rejected": "b", "base": None, "tuned": None,
         "better": None, "why": None, "rewards": {"chosen": 1.0, "rejected": 0.0, "margin": 1.0}},
    ]  # fmt: skip


_FORGETTING: dict[str, Any] = {
    "score": 0.034, "questions": 80, "base_right": 61, "tuned_right": 59, "lost": 3, "gained": 1,
    "worst": [
        {"question": "What is 2 * 3?", "answer": "6", "base": "6", "tuned": "Certainly! It is 5.", "base_right": True,
         "tuned_right": False, "loss": 1.0}
    ],
}  # fmt: skip


def _prepared() -> Prepared:
    lengths = Lengths(mean=20, p50=19, p90=34, p99=51, maximum=60)
    facts = DataFacts(
        source="examples/tiny/data/train.jsonl", rows=300, kept=300, prompts=268, conversational=True, duplicates=2,
        chosen_longer=0.91, prompt=lengths, chosen=lengths, rejected=lengths, total=lengths,
    )  # fmt: skip
    return Prepared(
        key="0" * 64,
        model_path="/models/base",
        train_path="/data/train.jsonl",
        validation_path="/data/validation.jsonl",
        model=ModelFacts(
            fingerprint="cd" * 32, architecture="LlamaForCausalLM", parameters=1_000_000, dtype="float32",
            bytes=4_000_000, hidden_size=128, layers=4, vocabulary=2000, lora_modules=28, lora_parameters=200_000,
        ),
        dataset=DatasetSummary(
            train_rows=300, validation_rows=60, fingerprint="ab" * 32, warnings=("train: 2 rows repeat earlier rows",)
        ),
        lint=LintReport(train=facts, validation=facts),
    )  # fmt: skip


def _write(path: Path, content: dict[str, Any] | Sequence[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
