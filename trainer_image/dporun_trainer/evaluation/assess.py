"""The files of an evaluation: what a run's finish and the command ``evaluate`` have in common."""

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dporun_api import run_folder as layout
from dporun_api.files import read_json, write_json
from dporun_api.run_config import Dpo
from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer.data.pairs import Pair, RowError, Tally, to_pair
from dporun_trainer.data.questions import Question
from dporun_trainer.data.rows import read_rows
from dporun_trainer.errors import RunError
from dporun_trainer.evaluation.batching import OnStage
from dporun_trainer.evaluation.evaluate import Options, evaluate, metrics, write_results
from dporun_trainer.evaluation.forgetting import measure, results
from dporun_trainer.evaluation.policy import Policy

log = logging.getLogger(__name__)

_LOG_SECONDS = 5.0


def evaluate_into(
    output: Path,
    policy: Policy,
    pairs: Sequence[Pair],
    options: Options,
    on_stage: OnStage | None = None,
    **record: Any,
) -> dict[str, Any]:
    """Evaluate, write ``comparison_results.json`` and ``evaluation_metrics.json``, and return the latter's content.

    Args:
        output: folder; created when absent.
        policy: the tuned model and its base.
        pairs: test data.
        options: how.
        on_stage: told how it goes on.
        record: further entries of ``evaluation_metrics.json``.

    Raises:
        RunError: see evaluate.
        OSError: the folder is not writable or the disk is full.

    """
    examples = evaluate(policy, pairs, options, on_stage)
    numbers = metrics(examples, pairs=len(pairs), beta=options.beta) | record
    write_results(examples, numbers, output)
    return numbers


def measure_forgetting_into(
    output: Path,
    policy: Policy,
    questions: Sequence[Question],
    options: Options,
    on_stage: OnStage | None = None,
    **record: Any,
) -> dict[str, Any]:
    """Measure forgetting, write ``forgetting.json``, enter the score into ``evaluation_metrics.json`` and return that.

    Args:
        output: folder that ``evaluate_into`` wrote.
        policy: the tuned model and its base.
        questions: general questions.
        options: how; only batch_size counts.
        on_stage: told how it goes on.
        record: further entries of ``forgetting.json``.

    """
    found = results(measure(policy, questions, batch_size=options.batch_size, on_stage=on_stage)) | record
    write_json(output / layout.FORGETTING.name, found)
    return enter_forgetting(output, found["score"])


def enter_forgetting(output: Path, score: float) -> dict[str, Any]:
    """Enter the score into ``evaluation_metrics.json`` and return that."""
    path = output / layout.EVALUATION_METRICS.name
    numbers: dict[str, Any] = read_json(path) | {"forgetting": score}
    write_json(path, numbers)
    return numbers


def read_pairs(path: Path) -> list[Pair]:
    """Read preference pairs from JSONL or Parquet.

    Raises:
        RunError: no such file, or rows that are no preference pairs; names them.

    """
    if not path.is_file():
        raise RunError(Reason.DATASET_INVALID, f"{path} is not a file")
    pairs: list[Pair] = []
    wrong: dict[str, Tally] = {}
    for row in read_rows(path):
        try:
            pairs.append(to_pair(row))
        except RowError as error:
            wrong.setdefault(str(error), Tally()).add(row.file, row.number)
    if wrong:
        message = "; ".join(f"{tally}: {what}" for what, tally in list(wrong.items())[:5])
        raise RunError(Reason.DATASET_INVALID, message, hint="Each row needs prompt, chosen and rejected.")
    if not pairs:
        raise RunError(Reason.DATASET_INVALID, f"{path} has no rows")
    return pairs


def recorded_dpo(model: Path) -> Dpo:
    """DPO settings of the run whose directory ``model`` is in, by its training_config.json; the defaults elsewhere."""
    path = model.resolve().parent / layout.TRAINING_CONFIG
    try:
        recorded = read_json(path)["dpo"]
        return Dpo(beta=recorded["beta"], max_length=recorded["max_length"])
    except FileNotFoundError:
        return Dpo()
    except (ValueError, KeyError, TypeError) as error:
        log.warning("%s cannot be read, so beta and max_length are the defaults: %s", path, error)
        return Dpo()


def logged(on_stage: OnStage | None = None) -> OnStage:
    """``on_stage`` that also writes a line to the log every few seconds and at the end of each stage."""
    told = 0.0

    def tell(name: str, done: int, total: int) -> None:
        nonlocal told
        if done == total or time.monotonic() - told >= _LOG_SECONDS:
            told = time.monotonic()
            log.info("%s %d/%d", name, done, total)
        if on_stage is not None:
            on_stage(name, done, total)

    return tell


def table(numbers: dict[str, Any]) -> str:
    """Describe the content of ``evaluation_metrics.json`` in a few lines for people."""
    share, reward = "{:.1%}".format, "{:+.3f}".format
    interval = f"{share(numbers['accuracy_low'])} to {share(numbers['accuracy_high'])}"
    lines = [
        ("accuracy", f"{share(numbers['accuracy'])}   (95 % interval {interval}; {numbers['ties']} ties)"),
        ("chosen reward", reward(numbers["avg_chosen_reward"])),
        ("rejected reward", reward(numbers["avg_rejected_reward"])),
        ("reward margin", reward(numbers["reward_margin"])),
        ("pairs", str(numbers["examples"]) + (f"   ({numbers['skipped']} left out)" if numbers["skipped"] else "")),
    ]
    if numbers["compared"]:
        against = f"better {numbers['better']}, worse {numbers['worse']}, equal {numbers['equal']}"
        lines.append(("answers vs base", f"{against}   (sign test p = {numbers['better_p_value']:.2g})"))
    if numbers["forgetting"] is not None:
        lines.append(("forgetting", share(numbers["forgetting"])))
    return "\n".join(f"{name:<16} {value}" for name, value in lines)
