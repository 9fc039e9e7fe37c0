"""A run's folder: a file is read with its model or not at all, and what the first version left still reads."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from dporun_api.results import Outcome, OutcomeState
from dporun_trainer.__main__ import main
from dporun_trainer.errors import RunError
from dporun_trainer.run_folder import RunFolder
from dporun_trainer.run_folder.running_totals import load

FIRST_VERSION = Path(__file__).parent / "cases" / "first_version"
"""What a run of two epochs left before there was RunFolder; of its checkpoint, the files that we wrote ourselves."""


@pytest.fixture
def old(tmp_path: Path) -> RunFolder:
    return RunFolder(Path(shutil.copytree(FIRST_VERSION, tmp_path / "old")))


def test_a_file_is_written_whole_and_read_as_it_was(tmp_path: Path) -> None:
    file = RunFolder(tmp_path / "run").outcome
    assert file.read() is None
    file.write(Outcome(state=OutcomeState.SUCCEEDED, message="done"))
    assert file.load() == Outcome(state=OutcomeState.SUCCEEDED, message="done")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["outcome.json"]
    file.delete()
    file.delete()
    assert file.read() is None


@pytest.mark.parametrize(
    "content", ["", '{"state": "Succ', '{"state": "Flew"}', '{"version": 7, "state": "Succeeded"}']
)
def test_a_file_that_holds_something_else_is_as_good_as_none(tmp_path: Path, content: str) -> None:
    file = RunFolder(tmp_path).outcome
    file.path.write_text(content, encoding="utf-8")
    assert file.read() is None


def test_what_prepare_left_is_needed(tmp_path: Path, old: RunFolder) -> None:
    with pytest.raises(RunError, match="prepare has not finished"):
        RunFolder(tmp_path).load_prepared()
    old.prepared.path.write_text("{}", encoding="utf-8")
    with pytest.raises(RunError, match="cannot be read") as raised:
        old.load_prepared()
    assert "delete it and run prepare again" in str(raised.value.hint)


def test_nodes_have_an_outcome_each(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert [folder.node_outcome(node).path.name for node in ("0", "1")] == ["outcome.json", "outcome-1.json"]


def without_new_fields(after: Any, before: Any) -> Any:
    if not isinstance(before, dict):
        return after
    return {name: without_new_fields(value, before[name]) for name, value in after.items() if name in before}


def test_every_record_of_version_1_is_read_and_written_alike(old: RunFolder) -> None:
    """What a document has got since then stands in it with its default."""
    evaluation = old.evaluation
    files = (
        old.training_config, old.training_metrics, evaluation.metrics, evaluation.comparison, evaluation.forgetting,
        old.health, old.verdict, old.outcome, old.prepared,
    )  # fmt: skip
    for file in files:
        before = json.loads(file.path.read_text(encoding="utf-8"))
        file.write(file.load())  # type: ignore[attr-defined]
        after = json.loads(file.path.read_text(encoding="utf-8"))
        assert without_new_fields(after, before) == before, file.path.name


def test_the_rest_of_the_first_version_reads(old: RunFolder) -> None:
    assert old.progress.read().step == 4
    assert [entry["step"] for entry in old.history.load() if "eval_loss" in entry] == [2, 4]
    (checkpoint,) = old.checkpoints.complete()
    assert checkpoint.marker.identity["worldSize"] == 1
    assert load(checkpoint.path, 0, processes=1).tokens > 0


def test_report_and_diagnosis_of_the_first_version(old: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(old.path)]) == 0
    html = old.report_html.read_text(encoding="utf-8")
    assert "cannot be read" not in html
    assert "DPO run <b>old</b>" in html
    assert main(["diagnose", str(old.path)]) in {0, 3, 10, 11, 12, 13}
    assert "read from log_history.json" in capsys.readouterr().out
