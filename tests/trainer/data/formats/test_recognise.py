"""Which format rows have, and what becomes of them: cases/*.yaml."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dporun_api.row_formats import DatasetFormat, Transcripts
from dporun_api.run_config import Dataset
from dporun_trainer.data.formats import Format, Options, for_template, recognise
from dporun_trainer.data.formats.reading import WRITTEN
from dporun_trainer.data.pairs import Pair, RowError, RowSkipped
from dporun_trainer.data.rows import Row
from dporun_trainer.errors import RunError

CASES = [
    pytest.param(case, id=f"{path.stem}-{case['name']}")
    for path in sorted((Path(__file__).parent / "cases").glob("*.yaml"))
    for case in yaml.safe_load(path.read_text())
]

COLUMNS = (
    "prompt", "chosen", "rejected", "system", "messages", "conversations", "tools", "instruction", "input", "history",
    "output", "question", "chosen_messages", "rejected_messages", "responses", "scores", "ranks", "images", "label",
)  # fmt: skip
KEYS = ("role", "content", "from", "value", "tool_calls", "function", "name", "arguments", "type", "text", "score")
ROWS = [row for case in CASES for row in case.values[0]["rows"]]


def read(form: Format, row: Row) -> Any:
    """What becomes of a row, as the cases say it."""
    try:
        pairs = form.pairs(row)
    except RowError as error:
        return str(error)
    except RowSkipped as skipped:
        return {"skipped": str(skipped)}
    assert {(pair.file, pair.number) for pair in pairs} == {(row.file, row.number)}
    told = [_told(pair) for pair in pairs]
    return told[0] if len(told) == 1 else told


def _told(pair: Pair) -> dict[str, Any]:
    columns: dict[str, Any] = json.loads(pair.line())
    if pair.tools:
        columns["tools"] = pair.tools
    return columns | ({"remarks": list(pair.remarks)} if pair.remarks else {})


@pytest.mark.parametrize("case", CASES)
def test_case(case: dict[str, Any]) -> None:
    rows = [Row("f.jsonl", number, columns) for number, columns in enumerate(case["rows"], 1)]
    options = Options.of(Dataset.model_validate({"train": "f.jsonl", **case.get("options", {})}))
    if "error" in case:
        with pytest.raises(RunError) as raised:
            recognise(rows, options)
        assert f"{raised.value.message} {raised.value.hint}" == case["error"]
        return
    form = recognise(rows, options)
    assert form.name == case["format"]
    for row, expected in zip(rows, case["pairs"], strict=True):
        assert read(form, row) == expected


def test_every_format_has_cases() -> None:
    assert {case.values[0].get("format") for case in CASES} >= set(DatasetFormat)


TEXTS = ("", " ", "red", "\n\nHuman: a\n\nAssistant: b", "\n\nHuman: a\n\nAssistant:", "[]", "{}", "\ud800")
anything = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 2) | st.sampled_from(TEXTS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=12,
)


@given(
    st.sampled_from(ROWS),
    st.dictionaries(st.sampled_from(COLUMNS), anything, max_size=2),
    st.sampled_from(DatasetFormat),
    st.sampled_from(Transcripts),
)
def test_any_row_is_pairs_or_an_error(
    like: dict[str, Any], others: dict[str, Any], form: DatasetFormat, transcripts: Transcripts
) -> None:
    """Pairs are written, and read as the same again."""
    row = Row("f.jsonl", 1, like | others)
    try:
        pairs = recognise([], Options(form, transcripts=transcripts)).pairs(row)
    except (RowError, RowSkipped):
        return
    for pair in pairs:
        assert pair.conversational == all(isinstance(text, list) for text in (pair.prompt, pair.chosen, pair.rejected))
        again = recognise([], WRITTEN).pairs(Row("f.jsonl", 1, json.loads(pair.line())))
        assert [other.line() for other in again] == [pair.line()]
        assert json.loads(for_template(pair, "").line())
