"""An evaluation and its files: what a run's finish and the command ``evaluate`` have in common."""

import logging
import math
import time
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from dporun_api.run_config import Dpo, Quantization
from dporun_trainer.data.pairs import Pair
from dporun_trainer.data.questions import Question
from dporun_trainer.evaluation.batching import Models, OnStage
from dporun_trainer.evaluation.evaluate import Options, evaluate, metrics, side_by_side
from dporun_trainer.evaluation.forgetting import measure, results
from dporun_trainer.run_folder import RunFolder
from dporun_trainer.run_folder.folder import EvaluationFolder
from dporun_trainer.run_folder.records import EvaluationRecord, ForgettingRecord

log = logging.getLogger(__name__)

_LOG_SECONDS = 5.0


def evaluate_into(
    output: EvaluationFolder,
    models: Models,
    pairs: Sequence[Pair],
    options: Options,
    on_stage: OnStage | None = None,
    *,
    adapter_sha256: str | None = None,
) -> EvaluationRecord:
    """Evaluate, and write ``comparison_results.json`` and then ``evaluation_metrics.json``.

    Args:
        output: folder; created when absent.
        models: the tuned model and its base.
        pairs: test data.
        options: lengths, number of examples and batch size.
        on_stage: called with the progress of each stage.
        adapter_sha256: to be recorded, so that a later attempt knows what was evaluated.

    Returns:
        The content of ``evaluation_metrics.json``.

    Raises:
        RunError: see evaluate.
        OSError: the folder is not writable or the disk is full.

    """
    examples = evaluate(models, pairs, options, on_stage)
    numbers = metrics(examples, pairs=len(pairs), beta=options.beta)
    if adapter_sha256 is not None:
        numbers = numbers.model_copy(update={"adapter_sha256": adapter_sha256})
    output.comparison.write(side_by_side(examples, numbers))
    output.metrics.write(numbers)
    return numbers


def measure_forgetting_into(
    output: EvaluationFolder,
    models: Models,
    questions: Sequence[Question],
    numbers: EvaluationRecord,
    *,
    batch_size: int | None,
    on_stage: OnStage | None = None,
) -> EvaluationRecord:
    """Measure forgetting, write ``forgetting.json`` and enter its result into ``evaluation_metrics.json``.

    Args:
        output: folder that ``evaluate_into`` wrote.
        models: the tuned model and its base.
        questions: general questions.
        numbers: what ``evaluate_into`` returned.
        batch_size: questions at a time; by default as many as fit.
        on_stage: called with the progress of each stage.

    Returns:
        ``numbers`` with the result.

    """
    found = results(measure(models, questions, batch_size=batch_size, on_stage=on_stage))
    if numbers.adapter_sha256 is not None:
        found = found.model_copy(update={"adapter_sha256": numbers.adapter_sha256})
    output.forgetting.write(found)
    return enter_forgetting(output, numbers, found)


def batches(pairs: Sequence[Pair], options: Options) -> int:
    """Batches in which the pairs are scored."""
    return math.ceil(len(pairs) / options.pairs_at_once)


def enter_forgetting(output: EvaluationFolder, numbers: EvaluationRecord, found: ForgettingRecord) -> EvaluationRecord:
    """Enter what ``forgetting.json`` found into ``evaluation_metrics.json``, as far as it is not there; its content."""
    entered = numbers.model_copy(update={"forgetting": found.score, "known_questions": found.base_right})
    if entered != numbers:
        output.metrics.write(entered)
    return entered


def recorded_dpo(model: Path) -> Dpo:
    """DPO settings of the run whose directory ``model`` is in, by its training_config.json; the defaults elsewhere."""
    file = RunFolder.around(model).training_config
    try:
        recorded = file.load().dpo
        return Dpo(beta=recorded.beta, max_length=recorded.max_length)
    except FileNotFoundError:
        return Dpo()
    except (OSError, ValidationError) as error:
        log.warning("%s cannot be read, so beta and max_length are the defaults: %s", file.path, error)
        return Dpo()


def recorded_quantization(model: Path) -> Quantization | None:
    """In how few bits the base was trained with in the run whose directory ``model`` is in; None elsewhere."""
    try:
        return RunFolder.around(model).training_config.load().requested.model.quantization
    except (OSError, ValidationError):  # recorded_dpo says so
        return None


def logged(on_stage: OnStage | None = None) -> OnStage:
    """``on_stage`` that also writes a line to the log every few seconds and at the end of each stage."""
    logged_at = 0.0

    def report(name: str, done: int, total: int) -> None:
        nonlocal logged_at
        if done == total or time.monotonic() - logged_at >= _LOG_SECONDS:
            logged_at = time.monotonic()
            log.info("%s %d/%d", name, done, total)
        if on_stage is not None:
            on_stage(name, done, total)

    return report


def table(numbers: EvaluationRecord) -> str:
    """Describe the content of ``evaluation_metrics.json`` in a few lines for people."""
    share, reward = "{:.1%}".format, "{:+.3f}".format
    interval = f"{share(numbers.accuracy_low)} to {share(numbers.accuracy_high)}"
    lines = [
        ("accuracy", f"{share(numbers.accuracy)}   (95 % interval {interval}; {numbers.ties} ties)"),
        ("chosen reward", reward(numbers.avg_chosen_reward)),
        ("rejected reward", reward(numbers.avg_rejected_reward)),
        ("reward margin", reward(numbers.reward_margin) + f"   (beta {numbers.beta:g})"),
        ("pairs", str(numbers.examples) + (f"   ({numbers.skipped} left out)" if numbers.skipped else "")),
    ]
    if numbers.compared:
        against = f"better {numbers.better}, worse {numbers.worse}, equal {numbers.equal}"
        lines.append(("answers vs base", f"{against}   (sign test p = {numbers.better_p_value:.2g})"))
    if numbers.forgetting is not None:
        known = f"   (of {numbers.known_questions} questions that the base model answers)"
        lines.append(("forgetting", share(numbers.forgetting) + known))
    return "\n".join(f"{name:<16} {value}" for name, value in lines)
