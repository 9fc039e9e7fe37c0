"""Run folders as the trainer leaves them, written as it writes them, without having trained."""

import json
from pathlib import Path
from typing import Any

import yaml

from dporun_api.dataset_report import DataFacts, Histogram, Lengths
from dporun_api.results import DatasetSummary, Outcome, OutcomeState, Stage
from dporun_api.run_config import RunConfig
from dporun_testing.paths import UNHEALTHY
from dporun_trainer.diagnosis.health import diagnose
from dporun_trainer.diagnosis.verdict import judge
from dporun_trainer.run_folder import RunFolder
from dporun_trainer.run_folder.checkpoints import Marker, mark_complete
from dporun_trainer.run_folder.prepared import LintReport, ModelFacts, Prepared, Tokens
from dporun_trainer.run_folder.records import (
    AskedQuestion,
    ComparedExample,
    ComparisonRecord,
    EvaluationRecord,
    ForgettingRecord,
    RecordedDataset,
    RecordedDistribution,
    RecordedDpo,
    RecordedLora,
    RecordedTraining,
    Rewards,
    TrainingMetrics,
    TrainingRecord,
)

HEALTHY = UNHEALTHY / "healthy"
ODD_NAME = "events.out.ünï çødé 日本.1"


def a_run(uri: str | None, **archive_fields: Any) -> RunConfig:
    fields: dict[str, Any] = {
        "run": {"name": "tone", "namespace": "team", "uid": "1a2b3c4d-0000-4000-8000-000000000000"},
        "model": {"uri": "hf://owner/name"},
        "dataset": {"train": "s3://bucket/train.jsonl"},
    }
    if uri is not None:
        fields["archive"] = {"uri": uri, **archive_fields}
    return RunConfig.model_validate(fields)


def finished_run(directory: Path, *, source: Path = HEALTHY, answer: str = "Certainly! It is better.") -> Path:
    """Write what a run leaves, evaluated well, and return the directory.

    Args:
        directory: to be made.
        source: example whose log history and manifest are taken: a run that was really trained.
        answer: of the tuned model, to the example in which it is better.

    """
    folder, config = RunFolder(directory), _config(source)
    history = json.loads((source / "log_history.json").read_text(encoding="utf-8"))
    versions = json.loads((source / "training_config.json").read_text(encoding="utf-8"))["versions"]
    numbers = an_evaluation()
    health = diagnose(history, config)
    folder.history.replace(history)
    folder.training_config.write(a_training_record(config, packages=versions))
    folder.training_metrics.write(TrainingMetrics(train_loss=0.3, eval_loss=0.02, train_runtime=518.5, epoch=2))
    folder.evaluation.metrics.write(numbers)
    folder.evaluation.comparison.write(ComparisonRecord(summary=numbers.answers(), examples=_examples(answer)))
    folder.evaluation.forgetting.write(_FORGETTING)
    folder.health.write(health)
    folder.verdict.write(judge(numbers.summary(), config.evaluation, health))
    folder.progress.update(stage=Stage.REPORTING, step=150, total_steps=150)
    folder.prepared.write(a_prepared())
    return directory


def results(directory: Path, *, state: OutcomeState = OutcomeState.SUCCEEDED, final: bool = True) -> Path:
    """Write what archive finds, and return the directory.

    The second of three checkpoints is the best, the fourth is torn; there are files that must not be archived.
    """
    folder = RunFolder(directory)
    files = {
        folder.merged / "model.safetensors": b"m" * 3000,
        folder.tensorboard / ODD_NAME: b"scalars",
        folder.evaluation.path / "empty.json": b"",
        folder.report_html: b"<html>",
        folder.input_model / "model.safetensors": b"base",
        directory / ".final.tmp123" / "x": b"half",
    }
    if final:
        files |= {
            folder.final / "adapter_model.safetensors": b"a" * 1000,
            folder.final / "adapter_config.json": b"{}",
        }
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    folder.evaluation.metrics.write(an_evaluation())
    folder.training_config.write(a_training_record(a_run(None)))
    folder.training_metrics.write(TrainingMetrics(train_loss=0.3))
    folder.history.replace([])
    folder.progress.update(stage=Stage.REPORTING)
    for step, loss in ((10, 0.6), (20, 0.4), (30, 0.5)):
        a_checkpoint(directory, step, loss)
    torn = folder.checkpoints.folder(40)
    torn.mkdir()
    (torn / "optimizer.pt").write_bytes(b"torn")
    folder.outcome.write(Outcome(state=state))
    return directory


def a_checkpoint(directory: Path, step: int, loss: float | None) -> None:
    path = RunFolder(directory).checkpoints.folder(step)
    path.mkdir(parents=True)
    (path / "adapter_model.safetensors").write_bytes(b"adapter %d" % step)
    (path / "optimizer.pt").write_bytes(b"optimizer")
    mark_complete(path, Marker(step=step, eval_loss=loss))


def a_prepared(**changes: Any) -> Prepared:
    """What prepare leaves; ``changes`` replace fields."""
    lengths = Lengths(
        mean=20, p50=19, p90=34, p99=51, maximum=60, histogram=Histogram(width=10, counts=(45, 130, 65, 35, 15, 9, 1))
    )
    facts = DataFacts(
        source="examples/tiny/data/train.jsonl", rows=300, kept=300, prompts=268, conversational=True, duplicates=2,
        chosen_longer=0.91, prompt=lengths, chosen=lengths, rejected=lengths, total=lengths,
    )  # fmt: skip
    prepared = Prepared(
        key="0" * 64,
        model_path="/models/base",
        train_path="/data/train.jsonl",
        validation_path="/data/validation.jsonl",
        tokens=Tokens(
            train_path="/data/tokens/train.arrow",
            validation_path="/data/tokens/validation.arrow",
            tokenizer="e" * 64,
        ),
        model=ModelFacts(
            fingerprint="cd" * 32, architecture="LlamaForCausalLM", parameters=1_000_000, dtype="float32",
            bytes=4_000_000, hidden_size=128, layers=4, vocabulary=2000, lora_modules=28, lora_parameters=200_000,
        ),
        dataset=DatasetSummary(
            train_rows=300, validation_rows=60, fingerprint="ab" * 32, warnings=("train: 2 rows repeat earlier rows",)
        ),
        lint=LintReport(train=facts, validation=facts),
    )  # fmt: skip
    return prepared.model_copy(update=changes)


def a_training_record(config: RunConfig, *, packages: dict[str, str] | None = None) -> TrainingRecord:
    """What training writes down when it begins."""
    dpo, lora, training, topology = config.dpo, config.lora, config.training, config.topology
    return TrainingRecord(
        run=config.run.name,
        model=config.model.uri,
        model_revision=None,
        image=config.image,
        seed=training.seed,
        dataset=RecordedDataset(
            train=config.dataset.train, validation=config.dataset.validation, train_rows=300, validation_rows=60,
            fingerprint="ab" * 32,
        ),
        dpo=RecordedDpo(
            beta=dpo.beta, loss_type=dpo.loss, loss_weights=None, label_smoothing=dpo.label_smoothing,
            max_length=dpo.max_length, precompute_ref_log_probs=True, router_aux_loss_coef=dpo.router_aux_loss_coef,
        ),
        lora=RecordedLora(
            r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.effective_dropout(takes_dropout=True),
            target_modules=("q_proj", "v_proj"),
            trainable_parameters=200_000, starts_from=None,
        ),
        training=RecordedTraining(
            num_train_epochs=training.epochs, steps=150, steps_per_epoch=75,
            per_device_train_batch_size=training.per_device_batch_size,
            gradient_accumulation_steps=training.gradient_accumulation_steps,
            effective_batch_size=config.effective_batch_size, learning_rate=training.learning_rate,
            lr_scheduler_type=training.lr_scheduler, warmup_steps=15, optimizer="adamw_torch",
            weight_decay=training.weight_decay, max_grad_norm=training.max_grad_norm, precision="fp32",
            gradient_checkpointing=False, logging_steps=1, early_stopping_patience=None, stop_on_unstable=False,
        ),
        distributed=RecordedDistribution(
            world_size=topology.world_size, nodes=topology.nodes, processes_per_node=topology.processes_per_node,
            zero_stage=topology.deepspeed.zero_stage, offload_optimizer=False, device="the CPU",
        ),
        packages=packages or {},
        requested=config,
    )  # fmt: skip


def an_evaluation() -> EvaluationRecord:
    """A good result."""
    return EvaluationRecord(
        accuracy=0.92, accuracy_low=0.823, accuracy_high=0.966, avg_chosen_reward=2.45, avg_rejected_reward=-1.23,
        reward_margin=3.68, reward_margin_low=3.1, reward_margin_high=4.2, beta=0.1, ties=0, examples=60,
        forgetting=0.034, known_questions=61, compared=40, better=28, worse=3, equal=9, better_than_base=True,
        better_p_value=4.6e-06,
    )  # fmt: skip


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


def _examples(answer: str) -> tuple[ComparedExample, ...]:
    def example(index: int, prompt: str, better: str, margin: float, tuned: str) -> ComparedExample:
        return ComparedExample(
            index=index, prompt=prompt, chosen="Certainly! It is good.", rejected="Go away.", base="It is good.",
            tuned=tuned, better=better, why=f"The {better} answer is nearer.",
            rewards=Rewards(chosen=margin, rejected=0.0, margin=margin),
        )  # fmt: skip

    return (
        example(0, "What is better?", "tuned", 2.0, answer),
        example(1, "What is better, too?", "tuned", 3.0, "Certainly! It is good."),
        example(2, "What is equal?", "tie", 1.0, "It is good."),
        example(3, "What is worse?", "base", 0.5, "Go away."),
        example(4, "What is worse still?", "base", -0.5, "Go away, you."),
        ComparedExample(
            index=5, prompt="What was not asked?", chosen="a", rejected="b",
            rewards=Rewards(chosen=1.0, rejected=0.0, margin=1.0),
        ),
    )  # fmt: skip


_FORGETTING = ForgettingRecord(
    score=0.034, questions=80, base_right=61, tuned_right=59, lost=3, gained=1,
    worst=(
        AskedQuestion(
            question="What is 2 * 3?", answer="6", base="6", tuned="Certainly! It is 5.", base_right=True,
            tuned_right=False, loss=1.0,
        ),
    ),
)  # fmt: skip
