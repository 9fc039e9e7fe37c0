"""Metrics and comparison of base and tuned model, and the command that makes them."""

import itertools
import json
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dporun_api.v1alpha1.reasons import Reason
from dporun_testing.adapters import save_random_adapter, save_trained_adapter
from dporun_testing.paths import ROOT, TINY
from dporun_testing.run_folders import a_training_record
from dporun_testing.tiny_model import chat_pairs, save_tiny_model, text_pairs, write_rows
from dporun_testing.training import a_config
from dporun_trainer.__main__ import main
from dporun_trainer.data.formats import Options as FormatOptions
from dporun_trainer.data.formats import read_pairs
from dporun_trainer.data.pairs import Pair
from dporun_trainer.errors import RunError
from dporun_trainer.evaluation.assess import evaluate_into, recorded_dpo
from dporun_trainer.evaluation.compare import Better, Comparison
from dporun_trainer.evaluation.evaluate import (
    Example,
    Options,
    as_text,
    bootstrap_interval,
    evaluate,
    metrics,
    spread,
)
from dporun_trainer.evaluation.policy import Policy, Sides, load_policy
from dporun_trainer.evaluation.scoring import LogProb, Reward
from dporun_trainer.run_folder import RunFolder
from dporun_trainer.run_folder.folder import EvaluationFolder

LOGPS = Sides(LogProb(-8.0, 4), LogProb(-6.0, 4))


def an_example(chosen: float, rejected: float, better: Better | None = None) -> Example:
    reward = Reward(chosen, rejected, chosen_logps=LOGPS, rejected_logps=LOGPS)
    comparison = None if better is None else Comparison(better, "because")
    return Example(0, Pair("prompt", "chosen", "rejected"), reward, comparison=comparison)


def pairs(rows: Sequence[dict[str, Any]]) -> list[Pair]:
    return [Pair(row["prompt"], row["chosen"], row["rejected"]) for row in rows]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return save_tiny_model(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def policy(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Policy:
    return load_policy(save_random_adapter(base, tmp_path_factory.mktemp("adapter")), base=base)


def test_metrics_are_means_and_ties_are_counted_apart() -> None:
    numbers = metrics([an_example(2, -1), an_example(1, 1), an_example(-1, 0), an_example(4, 0)], pairs=5, beta=0.1)
    assert numbers.accuracy == 0.5
    assert numbers.ties == 1
    assert numbers.avg_chosen_reward == 1.5
    assert numbers.avg_rejected_reward == 0
    assert numbers.reward_margin == 1.5
    assert (numbers.examples, numbers.skipped) == (4, 1)
    assert (numbers.compared, numbers.better_than_base, numbers.better_p_value) == (0, None, None)


@pytest.mark.parametrize(
    ("tuned", "base", "tie", "better"),
    [(6, 0, 0, True), (5, 0, 0, False), (2, 1, 1, False), (1, 0, 200, False), (0, 0, 1, False), (0, 8, 0, False)],
)
def test_better_than_base_is_noticeably_more_wins(tuned: int, base: int, tie: int, better: bool) -> None:
    judged = [Better.TUNED] * tuned + [Better.BASE] * base + [Better.TIE] * tie
    numbers = metrics([an_example(1, 0, word) for word in judged], pairs=len(judged), beta=0.1)
    assert numbers.better_than_base is better
    assert (numbers.better, numbers.worse, numbers.equal, numbers.compared) == (tuned, base, tie, len(judged))


def test_one_pair_shows_next_to_nothing() -> None:
    numbers = metrics([an_example(2, -1)], pairs=1, beta=0.1)
    assert (numbers.accuracy, numbers.accuracy_high) == (1, 1)
    assert numbers.accuracy_low == pytest.approx(0.2065, abs=1e-4)
    assert numbers.reward_margin_low is None
    assert numbers.reward_margin_high is None


def test_sixteen_pairs_have_an_interval_of_the_margin() -> None:
    numbers = metrics([an_example(i, 0) for i in range(16)], pairs=16, beta=0.1)
    assert numbers.reward_margin_low is not None
    assert numbers.reward_margin_high is not None
    assert 0 < numbers.reward_margin_low < numbers.reward_margin < numbers.reward_margin_high < 15


def test_summary_is_what_status_holds() -> None:
    numbers = metrics([an_example(2, -1, Better.TUNED)], pairs=1, beta=0.1)
    found = numbers.model_copy(update={"forgetting": 0.25, "known_questions": 8}).summary()
    assert (found.accuracy, found.reward_margin, found.beta) == (1, 3, 0.1)
    assert (found.better, found.worse, found.equal, found.better_p_value, found.better_than_base) == (1, 0, 0, 1, False)
    assert (found.forgetting, found.known_questions) == (0.25, 8)
    assert found.accuracy_low is not None


samples = st.lists(st.floats(-100, 100), min_size=1, max_size=30)


@settings(max_examples=30)
@given(samples, st.randoms(use_true_random=False))
def test_the_interval_holds_the_mean_in_whatever_order(values: list[float], random: Any) -> None:
    low, high = bootstrap_interval(values)
    mean = math.fsum(values) / len(values)
    assert min(values) - 1e-9 <= low <= mean + 1e-9
    assert mean - 1e-9 <= high <= max(values) + 1e-9
    shuffled = list(values)
    random.shuffle(shuffled)
    assert bootstrap_interval(shuffled) == (low, high)


def test_the_interval_of_many_values_is_nearly_normal() -> None:
    values = np.random.default_rng(1).normal(3.0, 2.0, 400)
    low, high = bootstrap_interval(values)
    error = values.std() / math.sqrt(len(values))
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.2 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.2 * error)


@given(st.integers(0, 300), st.integers(0, 300))
def test_spread_chooses_evenly(count: int, at_most: int) -> None:
    chosen = spread(count, at_most)
    assert len(chosen) == min(count, at_most)
    assert len({b - a for a, b in itertools.pairwise(chosen)}) <= 2
    assert all(0 <= position < count for position in chosen)
    assert chosen == sorted(set(chosen))


def test_as_text() -> None:
    assert as_text("plain") == "plain"
    assert as_text([{"role": "user", "content": "hello"}]) == "hello"
    both = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"}]
    assert as_text(both) == "system: be brief\nuser: hello"


def test_an_adapter_that_does_nothing_ties_everywhere(base: Path, tmp_path: Path) -> None:
    idle = load_policy(save_random_adapter(base, tmp_path / "adapter", scale=0), base=base)
    examples = evaluate(idle, pairs(chat_pairs(6)), Options(max_new_tokens=4))
    numbers = metrics(examples, pairs=6, beta=0.1)
    assert (numbers.accuracy, numbers.ties, numbers.equal) == (0, 6, 6)
    assert numbers.reward_margin == 0
    assert numbers.base_logps_accuracy == numbers.tuned_logps_accuracy


def test_numbers_do_not_depend_on_batch_size_or_order(policy: Policy) -> None:
    rows = pairs(chat_pairs(11))
    expected = metrics(evaluate(policy, rows, Options(max_new_tokens=6, batch_size=1)), pairs=11, beta=0.1).model_dump()
    for batch_size, these in ((3, rows), (16, rows), (4, rows[::-1])):
        examples = evaluate(policy, these, Options(max_new_tokens=6, batch_size=batch_size))
        assert metrics(examples, pairs=11, beta=0.1).model_dump() == pytest.approx(expected, abs=1e-5)


def test_rewards_and_answers_are_written_side_by_side(policy: Policy, tmp_path: Path) -> None:
    """Rewards of all pairs, answers to some."""
    told: list[tuple[str, int, int]] = []
    options = Options(max_examples=3, max_new_tokens=6)
    numbers = evaluate_into(
        EvaluationFolder(tmp_path), policy, pairs(chat_pairs(6)), options, lambda *at: told.append(at)
    )
    results = json.loads((tmp_path / "comparison_results.json").read_text())
    assert json.loads((tmp_path / "evaluation_metrics.json").read_text()) == numbers.model_dump(exclude_unset=True)
    assert [example["index"] for example in results["examples"]] == list(range(6))
    assert [example["better"] is not None for example in results["examples"]] == [True, False] * 3
    assert results["summary"]["compared"] == 3
    first = results["examples"][0]
    assert first["prompt"] == chat_pairs(6)[0]["prompt"][0]["content"]
    assert isinstance(first["base"], str)
    assert isinstance(first["tuned"], str)
    assert first["why"]
    margins = [example["rewards"]["margin"] for example in results["examples"]]
    assert sum(margins) / 6 == pytest.approx(numbers.reward_margin)
    assert told[-1] == ("generating", 3, 3)
    assert ("scoring", 6, 6) in told


def test_pairs_that_training_drops_are_left_out_and_counted(policy: Policy, tmp_path: Path) -> None:
    long = Pair("please " * 60, " yes", " no")
    rows = [*pairs(text_pairs(2)), long]
    numbers = evaluate_into(EvaluationFolder(tmp_path), policy, rows, Options(max_length=40, max_examples=0))
    assert (numbers.examples, numbers.skipped) == (2, 1)
    with pytest.raises(RunError, match="in all 1 the prompt alone has 40 tokens or more"):
        evaluate(policy, [long], Options(max_length=40))


def test_weights_that_are_not_numbers_are_an_error(base: Path, tmp_path: Path) -> None:
    broken = load_policy(save_random_adapter(base, tmp_path / "adapter", scale=float("inf")), base=base)
    with pytest.raises(RunError, match="is not a number") as caught:
        evaluate(broken, pairs(chat_pairs(2)), Options(max_examples=0))
    assert caught.value.reason is Reason.NON_FINITE_LOSS


def test_beta_is_the_runs_own(tmp_path: Path) -> None:
    (tmp_path / "final").mkdir()
    assert recorded_dpo(tmp_path / "final").beta == 0.1
    config = a_config(dpo={"beta": 0.05, "max_length": 77})
    RunFolder(tmp_path).training_config.write(a_training_record(config))
    assert (recorded_dpo(tmp_path / "final").beta, recorded_dpo(tmp_path / "final").max_length) == (0.05, 77)


def test_wrong_rows_are_named(tmp_path: Path) -> None:
    rows = [*text_pairs(1), {"prompt": "a"}, {"prompt": "a", "chosen": "b", "rejected": "b"}, {"prompt": "a"}]
    with pytest.raises(RunError) as caught:
        read_pairs(write_rows(tmp_path / "test.jsonl", rows), FormatOptions())
    assert "rows 2, 4 of test.jsonl" in caught.value.message
    assert "no chosen" in caught.value.message
    assert "row 3 of test.jsonl" in caught.value.message


@pytest.mark.parametrize(
    ("model", "test", "words"),
    [
        ("nowhere", "test.jsonl", "nowhere is not a folder"),
        ("empty", "test.jsonl", "has neither adapter_config.json nor config.json"),
        ("orphan", "test.jsonl", "the base model of"),
        ("torn", "test.jsonl", "cannot load the adapter"),
        ("adapter", "nowhere.jsonl", "nowhere.jsonl is not a file"),
        ("adapter", "empty.jsonl", "has no rows"),
        ("adapter", "wrong.jsonl", "row 2 of wrong.jsonl: no rejected"),
    ],
)
def test_bad_arguments_of_the_command_get_a_clear_error(
    base: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], model: str, test: str, words: str
) -> None:
    adapter = save_random_adapter(base, tmp_path / "adapter")
    config = json.loads((adapter / "adapter_config.json").read_text())
    for name in ("empty", "orphan", "torn"):
        (tmp_path / name).mkdir()
    (tmp_path / "orphan/adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "/gone"}))
    (tmp_path / "torn/adapter_config.json").write_text(json.dumps(config))
    (tmp_path / "torn/adapter_model.safetensors").write_bytes(b"torn")
    write_rows(tmp_path / "test.jsonl", text_pairs(2))
    write_rows(tmp_path / "empty.jsonl", [])
    write_rows(tmp_path / "wrong.jsonl", [*text_pairs(1), {"prompt": "a", "chosen": "b"}])
    output = tmp_path / "out"
    arguments = ["--model", str(tmp_path / model), "--test", str(tmp_path / test), "--output", str(output)]
    assert main(["evaluate", *arguments, "--no-general"]) == 65
    assert words in capfd.readouterr().err
    assert not output.exists()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    rows = [json.loads(line) for line in (TINY / "data/train.jsonl").read_text().splitlines()]
    return save_trained_adapter(TINY / "model", rows, tmp_path_factory.mktemp("trained"), steps=24)


@pytest.mark.slow(15)
def test_the_script_shows_that_training_made_it_better(trained: Path, tmp_path: Path) -> None:
    """With the flags of the specification and nothing else."""
    command = [sys.executable, str(ROOT / "scripts/evaluate_model.py")]
    command += ["--model", str(trained), "--test", str(TINY / "data/val.jsonl"), "--output", str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    numbers = json.loads((tmp_path / "evaluation_metrics.json").read_text())
    assert numbers["accuracy"] > 0.55
    assert numbers["reward_margin"] > 0
    assert numbers["avg_chosen_reward"] - numbers["avg_rejected_reward"] == pytest.approx(numbers["reward_margin"])
    assert numbers["accuracy_low"] <= numbers["accuracy"] <= numbers["accuracy_high"]
    assert numbers["better"] > 2 * numbers["worse"]
    assert numbers["better_p_value"] < 0.05
    assert 0 <= numbers["forgetting"] <= 1
    examples = json.loads((tmp_path / "comparison_results.json").read_text())["examples"]
    assert len(examples) == 60
    assert all(example["why"] for example in examples)
    assert json.loads((tmp_path / "forgetting.json").read_text())["questions"] == 60
    assert "accuracy" in done.stdout
    assert "generating 60/60" in done.stderr
