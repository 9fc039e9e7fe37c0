"""The command ``prepare``: the page about the data that it leaves in the run's folder."""

from pathlib import Path

from dporun_api.dataset_report import DropReason
from dporun_api.run_config import RunConfig
from dporun_testing.page import Page
from dporun_testing.tiny_model import text_pairs, write_rows
from dporun_trainer.__main__ import main
from dporun_trainer.commands.report import report
from dporun_trainer.run_folder import RunFolder


def prepared(root: Path, model: Path, train: Path) -> tuple[int, RunFolder]:
    sections = {"run": {"name": "run"}, "model": {"uri": str(model)}, "dataset": {"train": str(train)}}
    config = RunConfig.model_validate(sections | {"dpo": {"maxLength": 64}})
    (root / "run.json").write_text(config.to_json())
    code = main(["prepare", "--config", str(root / "run.json"), "--root", str(root)])
    return code, RunFolder(root / config.run.directory)


def test_data_is_shown_and_linked_from_the_report(tiny_model: Path, tmp_path: Path) -> None:
    rows = text_pairs(200)
    rows[6]["rejected"] = ""
    code, folder = prepared(tmp_path, tiny_model, write_rows(tmp_path / "pairs.jsonl", rows))
    assert code == 0
    said = Page(folder.dataset_html.read_text()).words
    assert "Fit for training" in said
    assert "Lengths in tokens, training" in said
    assert "1an empty rejectedtrainingrow 7 of pairs.jsonl" in said
    assert "dataset.html" in set(folder.files()), "it is archived"
    report(folder)
    links = [attributes.get("href") for tag, attributes in Page(folder.report_html.read_text()).tags if tag == "a"]
    assert "dataset.html" in links


def test_refused_data_is_shown_as_well(tmp_path: Path) -> None:
    rows = text_pairs(20)
    for row in rows[:5]:
        row["chosen"] = ""
    code, folder = prepared(tmp_path, tmp_path / "no-model", write_rows(tmp_path / "pairs.jsonl", rows))
    assert code == 65
    refused = folder.dataset_report.load()
    assert refused.refused is not None
    assert "5 of 20 rows cannot be used" in refused.refused.message
    assert refused.train.facts.dropped == {DropReason.INVALID: 5}
    assert [row.row for row in refused.train.dropped] == [1, 2, 3, 4, 5]
    assert "Refused" in Page(folder.dataset_html.read_text()).words
    assert prepared(tmp_path, tmp_path / "no-model", tmp_path / "gone.jsonl")[0] == 65
    assert not folder.dataset_html.exists(), "nothing is known of other data"
