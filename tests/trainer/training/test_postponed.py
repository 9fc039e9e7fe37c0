"""What TRL computes for the log of every batch waits until it is logged, and is what TRL would have logged."""

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from dporun_testing import training
from dporun_testing.training import a_config


@pytest.fixture(scope="module")
def found(model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A run of two processes, twice: as it is, and with TRL's own gathering. Its last batches are not full."""
    root = tmp_path_factory.mktemp("waiting")
    config = a_config(
        lora={"dropout": 0.0},
        training={"epochs": 1, "logging_steps": 2, "learning_rate": 2e-2},
        topology={"processes_per_node": 2},
    )
    directory = training.prepare(config, root, model, train=21, validation=3)
    shutil.copytree(directory, f"{directory}-plain")
    found: dict[str, Any] = training.by_processes("dporun_testing.waiting", config, directory)
    return found


@pytest.mark.slow(30)
def test_a_batch_waits_for_nothing_that_is_only_logged(found: dict[str, Any]) -> None:
    """TRL gathers fifteen numbers and reads as many; what is left to read is the model's own look at the mask."""
    ours, plain = (found[arm]["batches"] for arm in ("ours", "plain"))
    assert len(ours) == len(plain) == 6
    for left, all_of_them in zip(ours, plain, strict=True):
        saved = Counter(all_of_them) - Counter(left)
        assert saved == {"collectives": 15, "values read": 15, "selections by mask": 2}
        assert left.keys() == {"values read"}


@pytest.mark.slow
def test_the_log_is_trl_s(found: dict[str, Any]) -> None:
    ours, plain = (found[arm]["history"] for arm in ("ours", "plain"))
    assert len(ours) == len(plain)
    for entry, expected in zip(ours, plain, strict=True):
        rounded = {name for name in entry if name.startswith("logits/")}
        assert {name: entry[name] for name in rounded} == pytest.approx({name: expected[name] for name in rounded})
        assert {**entry, **dict.fromkeys(rounded)} == {**expected, **dict.fromkeys(rounded)}
