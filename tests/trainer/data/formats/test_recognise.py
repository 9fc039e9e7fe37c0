"""Which format rows have, and what becomes of them: cases/*.yaml."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from dporun_api.run_config import Columns
from dporun_trainer.data.formats import Options, recognise
from dporun_trainer.data.pairs import RowError
from dporun_trainer.data.rows import Row
from dporun_trainer.errors import RunError

CASES = [
    pytest.param(case, id=f"{path.stem}-{case['name']}")
    for path in sorted((Path(__file__).parent / "cases").glob("*.yaml"))
    for case in yaml.safe_load(path.read_text())
]


def options(case: dict[str, Any]) -> Options:
    given = dict(case.get("options", {}))
    return Options(**given | {"columns": Columns(**given.get("columns", {}))})


@pytest.mark.parametrize("case", CASES)
def test_case(case: dict[str, Any]) -> None:
    rows = [Row("f.jsonl", number, columns) for number, columns in enumerate(case["rows"], 1)]
    if "error" in case:
        with pytest.raises(RunError) as raised:
            recognise(rows, options(case))
        assert f"{raised.value.message} {raised.value.hint}" == case["error"]
        return
    form = recognise(rows, options(case))
    assert form.name == case["format"]
    for row, expected in zip(rows, case["pairs"], strict=True):
        if isinstance(expected, str):
            with pytest.raises(RowError) as refused:
                form.pairs(row)
            assert str(refused.value) == expected
        else:
            pairs = form.pairs(row)
            remarks = [expected.pop("remarks", [])] if isinstance(expected, dict) else [[] for _ in expected]
            wanted = [expected] if isinstance(expected, dict) else expected
            assert [json.loads(pair.line()) for pair in pairs] == wanted
            assert [list(pair.remarks) for pair in pairs] == remarks
            assert {(pair.file, pair.number) for pair in pairs} == {(row.file, row.number)}
