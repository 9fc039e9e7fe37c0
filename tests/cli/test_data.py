"""``dporun data`` as people use it: real processes on real files."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dporun_api import pod
from dporun_api.dataset_report import DatasetReport, DropReason
from dporun_cli.local_config import local_config
from dporun_cli.manifest import read
from dporun_testing.manifests import dporun
from dporun_testing.tiny_model import chat_pairs, save_tiny_model, text_pairs, write_rows

NARROW = {"COLUMNS": "80"}


def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dporun_cli", "data", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | NARROW | environment)


def on_a_terminal(*arguments: object, **environment: str) -> str:
    """What the command writes to a terminal of 80 columns."""
    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "dporun_cli", "data", *map(str, arguments)]
    variables = {name: value for name, value in os.environ.items() if name != "NO_COLOR"} | NARROW | {"TERM": "xterm"}
    with subprocess.Popen(command, stdout=follower, stderr=subprocess.DEVNULL, env=variables | environment) as process:
        os.close(follower)
        written = b""
        while True:
            try:
                part = os.read(leader, 65536)
            except OSError:  # of Linux, when the last writer has gone
                break
            written += part
        process.wait()
    os.close(leader)
    return written.decode()


def manifest(folder: Path, **spec: Any) -> Path:
    """A manifest for ``--map s3://bucket=FOLDER``."""
    path = folder / "dporun.yaml"
    path.write_text(
        json.dumps(dporun("run", {"model": {"uri": "s3://bucket/model"}, "resources": {"gpusPerNode": 0}} | spec))
    )
    return path


def prepared(path: Path, folder: Path) -> tuple[int, DatasetReport]:
    """Exit code and report of the real prepare, of the manifest at ``path``."""
    config = local_config(read(path)[0], folder, {"s3://bucket": folder})
    (folder / "run.json").write_text(config.to_json())
    arguments = pod.arguments(pod.Command.PREPARE, config=folder / "run.json", root=folder, port=None)
    environment = os.environ | {pod.TERMINATION_LOG_VARIABLE: os.devnull}
    done = subprocess.run([sys.executable, "-m", pod.MODULE, *arguments], check=False, env=environment)
    report = (folder / config.run.directory / "dataset_report.json").read_bytes()
    return done.returncode, DatasetReport.model_validate_json(report)


def words(text: str) -> str:
    return " ".join(text.split())


def test_good_data_is_shown_in_a_table(tmp_path: Path) -> None:
    write_rows(tmp_path / "pairs.jsonl", chat_pairs(60))
    done = run(tmp_path / "pairs.jsonl")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Fit for training")
    said = words(done.stdout)
    assert "54 pairs for training, 6 for validation; one warning." in said
    assert "only 6 validation rows" in said
    assert "Rows read 60" in said
    assert "Lengths in characters, training" in said
    assert said.count("row 1 of pairs.jsonl") == 1
    assert "prompt user: what is" in said
    assert "\033" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert done.stderr == ""


def test_rows_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    rows: list[Any] = text_pairs(40)
    rows[4]["chosen"] = rows[9]["chosen"] = ""
    rows[11] = ["no", "object"]
    done = run(write_rows(tmp_path / "pairs.jsonl", rows), "--json")
    assert done.returncode == 65
    report = DatasetReport.model_validate_json(done.stdout)
    assert report.refused is not None
    assert report.refused.reason == "DatasetInvalid"
    assert report.train.facts.rows == 40
    assert report.train.facts.dropped == {DropReason.INVALID: 3}
    assert [(row.row, row.detail) for row in report.train.dropped] == [
        (5, "an empty chosen"),
        (10, "an empty chosen"),
        (12, "something that is not a JSON object"),
    ]
    said = words(run(tmp_path / "pairs.jsonl").stdout)
    assert said.startswith("Refused")
    assert "2 an empty chosen (training: rows 5, 10 of pairs.jsonl)" in said
    assert "Correct these rows or take them out." in said


def test_a_wrong_format_is_told_with_what_is_there(tmp_path: Path) -> None:
    write_rows(tmp_path / "pairs.jsonl", [{"question": "2 + 2?", "good": "4", "bad": "5"}] * 3)
    done = run(tmp_path / "pairs.jsonl")
    assert done.returncode == 65
    assert "bad, good, question" in words(done.stdout + done.stderr)


def test_responses_that_are_the_same_are_left_out(tmp_path: Path) -> None:
    """Without a model nothing is cut, so dpo.maxLength is not the reason."""
    rows = [*text_pairs(30), {"prompt": "2 + 2?", "chosen": "4", "rejected": "4"}]
    done = run(write_rows(tmp_path / "pairs.jsonl", rows), "--json")
    assert any(
        warning.startswith("responses that are the same, left out: 1 of 31 rows (row 31 ")
        for warning in DatasetReport.model_validate_json(done.stdout).warnings
    )


def test_a_file_that_is_not_there_is_a_clear_error(tmp_path: Path) -> None:
    done = run(tmp_path / "nothing.jsonl", "--json")
    assert done.returncode == 65
    assert done.stdout == ""
    assert f"{tmp_path / 'nothing.jsonl'} does not exist" in done.stderr


def test_prompts_in_both_files_are_leaks(tmp_path: Path) -> None:
    rows = text_pairs(40)
    train = write_rows(tmp_path / "train.jsonl", rows)
    validation = write_rows(tmp_path / "validation.jsonl", [*text_pairs(25, seed=7), *rows[:3]])
    done = run(train, "--validation", validation)
    assert done.returncode == 0
    said = words(done.stdout)
    assert "Prompts in both 3" in said
    assert "dataset.leaks to Drop 3 prompts of validation are in the training data" in said


@pytest.mark.slow(20)
def test_a_model_counts_in_tokens_and_tries_its_template(tmp_path: Path) -> None:
    model = save_tiny_model(tmp_path / "model")
    train = write_rows(tmp_path / "pairs.jsonl", chat_pairs(60))
    done = run(train, "--model", model, "--max-length", 40, "--json")
    assert done.returncode == 0, done.stderr
    report = DatasetReport.model_validate_json(done.stdout)
    assert report.train.facts.unit == "tokens"
    assert report.max_length == 40
    assert report.train.facts.truncated > 0
    (model / "chat_template.jinja").unlink()
    refused = run(train, "--model", model)
    assert refused.returncode == 65
    assert "the model's tokenizer has no chat template" in words(refused.stderr), "the model is at fault, not the data"


def test_the_page_is_written_beside(tmp_path: Path) -> None:
    train = write_rows(tmp_path / "pairs.jsonl", text_pairs(60))
    page = tmp_path / "dataset.html"
    done = run(train, "--html", page, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["train"]["facts"]["rows"] == 60
    assert page.read_text().count("<svg") == 3


def test_colour_is_for_terminals_that_want_it(tmp_path: Path) -> None:
    train = write_rows(tmp_path / "pairs.jsonl", text_pairs(60))
    assert "\033[1;33mFit for training" in on_a_terminal(train)
    assert "\033[1;33m" not in on_a_terminal(train, NO_COLOR="1")


def test_data_cannot_write_to_the_terminal(tmp_path: Path) -> None:
    rows = text_pairs(60)
    for row in rows:
        row["prompt"] = f"\033]0;owned\007{row['prompt']}\033[2J\u202e"
    assert "\033]0" not in (shown := on_a_terminal(write_rows(tmp_path / "pairs.jsonl", rows)))
    assert "\033[2J" not in shown
    assert "\u202e" not in shown
    assert "owned" in shown


def test_columns_and_policies_of_a_manifest_count(tmp_path: Path) -> None:
    rows = [{"q": row["prompt"], "j": row["chosen"], "k": row["rejected"]} for row in text_pairs(60)]
    write_rows(tmp_path / "train.jsonl", [*rows, *rows[:5]])
    columns = {"prompt": "q", "chosen": "j", "rejected": "k"}
    path = manifest(tmp_path, dataset={"columns": columns, "duplicates": "Drop", "maxRows": 50})
    done = run("-f", path, "--map", f"s3://bucket={tmp_path}", "--no-model", "--json")
    assert done.returncode == 0, done.stderr
    report = DatasetReport.model_validate_json(done.stdout)
    assert report.train.facts.unit == "characters"
    assert report.train.facts.rows == 50
    assert report.train.facts.dropped.keys() == {DropReason.DUPLICATE}
    by_hand = DatasetReport.model_validate_json(
        run(write_rows(tmp_path / "other.jsonl", rows[:30]), "-f", path, "--no-model", "--json").stdout
    )
    assert by_hand.train.facts.rows == 30, "the bucket of the manifest is not asked"


@pytest.mark.slow(30)
def test_a_manifest_says_what_prepare_would_say(tmp_path: Path) -> None:
    save_tiny_model(tmp_path / "model")
    rows = text_pairs(60)
    rows[7]["prompt"] *= 30
    write_rows(tmp_path / "train.jsonl", [*rows, rows[3]])
    for duplicates, expected in (("Drop", pod.ExitCode.OK), ("Fail", pod.ExitCode.DATA_INVALID)):
        dataset = {"validationFraction": 0.3, "duplicates": duplicates}
        path = manifest(tmp_path, dataset=dataset, dpo={"maxLength": 64}, training={"seed": 7})
        done = run("-f", path, "--map", f"s3://bucket={tmp_path}", "--json")
        code, report = prepared(path, tmp_path)
        assert done.returncode == code == expected, done.stderr
        assert DatasetReport.model_validate_json(done.stdout) == report
    assert report.refused is not None


def test_a_claim_of_a_manifest_needs_a_folder(tmp_path: Path) -> None:
    path = manifest(tmp_path, dataset={"train": "pvc://data/train.jsonl"})
    done = run("-f", path)
    assert done.returncode == 64
    assert done.stderr == (
        "spec.dataset.train: pvc://data/train.jsonl exists only in a cluster; "
        "give its local path: --map pvc://data/train.jsonl=PATH\n"
    )


def test_without_data_the_usage_is_told() -> None:
    done = run()
    assert done.returncode == 2
    assert "name a file of preference data, or a manifest: -f FILE" in words(done.stderr.replace("│", ""))
