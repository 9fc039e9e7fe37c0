"""Looking at data without a run: what is said of the data, and what of the model."""

from pathlib import Path
from typing import Any

import pytest

from dporun_api.run_config import Dataset, Model
from dporun_api.v1alpha1.reasons import Reason
from dporun_testing.tiny_model import text_pairs, write_rows
from dporun_trainer.errors import RunError
from dporun_trainer.inputs.inspection import inspect
from dporun_trainer.reporting.dataset_words import facts


def options(folder: Path, rows: list[Any]) -> dict[str, Any]:
    data = write_rows(folder / "train.jsonl", rows)
    return {
        "dataset": Dataset(train=str(data)),
        "scratch": folder / "scratch",
        "max_length": 64,
        "seed": 1,
        "claims": folder,
    }


def test_a_missing_model_is_no_fault_of_the_data(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="nowhere") as raised:
        inspect(**options(tmp_path, text_pairs(20)), model=Model(uri=str(tmp_path / "nowhere")))
    assert raised.value.reason is Reason.MODEL_INVALID


def test_refused_data_is_reported_as_far_as_it_was_read(tmp_path: Path) -> None:
    report = inspect(**options(tmp_path, [*text_pairs(20), {"prompt": "what is red"}]), model=None)
    assert report.refused
    assert report.train.facts.rows == 21
    names = [name for name, *_ in facts(report)]
    assert "Rows read" in names
    assert "Distinct prompts" not in names
