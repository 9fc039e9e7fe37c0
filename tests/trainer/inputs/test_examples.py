"""Every file of examples/formats is taken by prepare, and docs/data.md shows rows that are there."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from dporun_api.run_config import Dataset
from dporun_testing.paths import ROOT
from dporun_trainer.data.formats import recognise
from dporun_trainer.data.rows import Row, RowFile
from dporun_trainer.inputs.dataset import Side, build
from dporun_trainer.inputs.encoding import Encoder
from dporun_trainer.inputs.gather import gather
from dporun_trainer.inputs.selection import select
from dporun_trainer.inputs.source import Source
from dporun_trainer.inputs.tokenizer import load_tokenizer

FOLDER = ROOT / "examples" / "formats"
LISTED = dict(re.findall(r"^\| `([\w.-]+)` \|.*\| (\w+) \|$", (FOLDER / "README.md").read_text(), re.MULTILINE))
PAGE = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    found: list[str] = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return found


def rows(name: str) -> list[Row]:
    return list(RowFile(FOLDER / name, name).rows())


def test_every_example_is_listed() -> None:
    assert sorted(LISTED) == sorted(path.name for path in FOLDER.glob("*.json*"))


@pytest.mark.parametrize("name", LISTED)
def test_prepare_takes_the_example(name: str, tiny_model: Path, tmp_path: Path) -> None:
    assert recognise(rows(name)).name == LISTED[name]
    source = Source(f"pvc://claim/{name}", [RowFile(FOLDER / name, name)])
    policies = Dataset(train=source.uri, validation_fraction=0.25)
    gathered = gather(source, tmp_path / "pairs.jsonl", policies, max_length=1024)
    dataset = build(
        select(gathered, None, policies, seed=1), Encoder(load_tokenizer(tiny_model)),
        train_to=Side(tmp_path / "train.jsonl"), validation_to=Side(tmp_path / "validation.jsonl"),
    )  # fmt: skip
    assert (dataset.train_rows, dataset.validation_rows) == (3, 1)


def test_the_page_shows_a_row_of_every_example() -> None:
    shown = [json.loads(block) for block in blocks("json")]
    there: dict[str, list[dict[str, Any]]] = {name: [row.columns for row in rows(name)] for name in LISTED}
    assert [row for row in shown if not any(row in columns for columns in there.values())] == []
    assert [name for name, columns in there.items() if not any(row in columns for row in shown)] == []


@pytest.mark.parametrize("block", [block for block in blocks("yaml") if block.startswith("dataset:")])
def test_the_api_takes_what_the_page_says(block: str) -> None:
    Dataset.model_validate(yaml.safe_load(block)["dataset"])
