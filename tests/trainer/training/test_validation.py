"""Validation against float64 and formulas from the papers: every row counts once, in one process and in two."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from dporun_api.run_config import Dpo
from dporun_testing import formulas, training
from dporun_testing.adapters import save_random_adapter
from dporun_testing.training import a_config, attempt
from dporun_testing.validating import OBJECTIVES, Layout, by_processes, scores, validations
from dporun_trainer.run_folder.checkpoints import Checkpoints

pytestmark = pytest.mark.slow(40)

ROWS = 13
ONE: list[Layout] = [(13, 4), (13, 1), (13, 5), (13, 16), (12, 4), (1, 4)]
TWO: list[Layout] = [
    (13, 4),  # the second process has 1 real row of 4 in the last batch
    (13, 8),  # and here 5 of 8, in the only batch
    (13, 2),  # none in the last batch
    (9, 4),
    (3, 4),  # none at all
    (8, 4),  # nothing to fill up
    (1, 1),
]


@pytest.fixture(scope="module")
def adapter(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the runs start from, so that the policy is some nats away from the reference."""
    return save_random_adapter(model, tmp_path_factory.mktemp("adapter"), scale=10.0)


@pytest.fixture(scope="module", params=["one process", "two processes"])
def run(
    request: pytest.FixtureRequest, model: Path, adapter: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    """A run that has trained one epoch: its directory, its validations and the scores of its rows."""
    root, processes = tmp_path_factory.mktemp("run"), 1 if request.param == "one process" else 2
    config = a_config(
        "run",
        lora={"dropout": 0.0},
        training={"epochs": 1, "per_device_batch_size": 4, "gradient_accumulation_steps": 1},
        topology={"processes_per_node": processes},
    )
    directory = training.prepare(config, root, model, validation=ROWS, adapter=adapter)
    if processes > 1:
        return directory, by_processes(config, directory, TWO)
    with training.single_process():
        trainer = attempt(config, directory)
        found = list(validations(trainer, ONE))
        return directory, {"validations": found, "scores": scores(trainer)}


def expected_loss(found: dict[str, Any], dpo: Dpo, rows: int = ROWS) -> float:
    names = ("chosen", "rejected", "ref_chosen", "ref_rejected", "chosen_tokens", "rejected_tokens")
    arrays = formulas.Scores.of([[row[name] for name in names] for row in found["scores"][:rows]])
    return sum(
        weight * formulas.loss(loss, arrays, beta=dpo.beta, smoothing=dpo.label_smoothing)
        for loss, weight in zip(dpo.loss, dpo.loss_weights or [1] * len(dpo.loss), strict=True)
    )


def test_the_loss_of_a_run_is_that_of_its_rows(run: tuple[Path, dict[str, Any]]) -> None:
    directory, found = run
    expected = pytest.approx(expected_loss(found, Dpo()), rel=1e-6)
    assert json.loads((directory / "training_metrics.json").read_text())["eval_loss"] == expected
    (checkpoint,) = Checkpoints(directory).complete()
    (logged,) = (entry for entry in training.history(directory) if "eval_loss" in entry)
    assert logged["eval_loss"] == checkpoint.marker.eval_loss == expected


def test_no_layout_changes_the_loss(run: tuple[Path, dict[str, Any]]) -> None:
    _, found = run
    layouts = [one for one in found["validations"] if one["objective"] is None]
    assert len(layouts) in {len(ONE), len(TWO)}
    for one in layouts:
        expected = expected_loss(found, Dpo(), one["rows"])
        assert one["eval_loss"] == pytest.approx(expected, rel=1e-6), (one["rows"], one["batch"])


def test_every_loss_is_that_of_its_paper(run: tuple[Path, dict[str, Any]]) -> None:
    _, found = run
    seen = [one for one in found["validations"] if one["objective"] is not None]
    assert len(seen) == len(OBJECTIVES)
    for one in seen:
        dpo = OBJECTIVES[one["objective"]]
        assert one["eval_loss"] == pytest.approx(expected_loss(found, dpo), rel=2e-6), dpo


def test_no_layout_changes_the_other_metrics(run: tuple[Path, dict[str, Any]]) -> None:
    _, found = run
    for one in found["validations"]:
        if one["objective"] is not None:
            continue
        rows = found["scores"][: one["rows"]]

        def mean(values: list[float]) -> float:
            return math.fsum(values) / len(values)

        chosen = [Dpo().beta * (row["chosen"] - row["ref_chosen"]) for row in rows]
        rejected = [Dpo().beta * (row["rejected"] - row["ref_rejected"]) for row in rows]
        margins = [c - r for c, r in zip(chosen, rejected, strict=True)]
        tokens = {side: sum(row[f"{side}_tokens"] for row in rows) for side in ("chosen", "rejected")}
        entropy = sum(row["chosen_entropy"] + row["rejected_entropy"] for row in rows)
        expected = {
            "eval_rewards/chosen": mean(chosen),
            "eval_rewards/rejected": mean(rejected),
            "eval_rewards/margins": mean(margins),
            "eval_rewards/accuracies": mean([margin > 0 for margin in margins]),
            "eval_logps/chosen": mean([row["chosen"] for row in rows]),
            "eval_logps/rejected": mean([row["rejected"] for row in rows]),
            "eval_logits/chosen": sum(row["chosen_logits"] for row in rows) / tokens["chosen"],
            "eval_logits/rejected": sum(row["rejected_logits"] for row in rows) / tokens["rejected"],
            "eval_entropy": entropy / sum(tokens.values()),
            "eval_mean_token_accuracy": sum(row["chosen_likeliest"] for row in rows) / tokens["chosen"],
        }
        assert {name: one[name] for name in expected} == pytest.approx(expected, rel=1e-5, abs=2e-6)
