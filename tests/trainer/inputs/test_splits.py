"""The files of a split of a data set."""

from pathlib import Path

import pytest
import yaml

from dporun_trainer.errors import RunError
from dporun_trainer.inputs.splits import data_files, read_card

CASES = yaml.safe_load((Path(__file__).parent / "cases" / "splits.yaml").read_text())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_files_of_a_split(case: dict[str, object]) -> None:
    config = case.get("config")
    card = {"configs": case["configs"]} if "configs" in case else {}
    for split, expected in case["splits"].items():  # type: ignore[attr-defined]
        if isinstance(expected, str):
            with pytest.raises(RunError) as raised:
                data_files("owner/name", case["files"], card, split=split, config=config)  # type: ignore[arg-type]
            assert expected in f"{raised.value.message} {raised.value.hint}"
        else:
            assert data_files("owner/name", case["files"], card, split=split, config=config) == expected  # type: ignore[arg-type]


def test_card_is_the_header_of_the_readme() -> None:
    assert read_card("---\nconfigs:\n- config_name: a\n---\n# Data")["configs"] == [{"config_name": "a"}]
    assert not read_card("# no header").get("configs")
    assert not read_card("---\n[broken\n---\n").get("configs")
