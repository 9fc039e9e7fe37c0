"""``dporun run --local`` with the real trainer: stopped, taken up again, archived; and what it refuses."""

import fcntl
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from dporun_api.results import Outcome, OutcomeState
from dporun_testing.manifests import dporun
from dporun_testing.paths import UNHEALTHY
from dporun_testing.processes import running
from dporun_testing.tiny_model import save_tiny_model, text_pairs, write_rows

slow = pytest.mark.slow

SPEC: dict[str, Any] = {
    "model": {"uri": "s3://bucket/model"},
    "dataset": {"train": "s3://bucket/train.jsonl", "validation": "s3://bucket/val.jsonl"},
    "dpo": {"maxLength": 64},
    "lora": {"rank": 2},
    "training": {"epochs": 2, "learningRate": 1e-3, "perDeviceBatchSize": 2, "gradientAccumulationSteps": 1},
    "resources": {"gpusPerNode": 0},
    "evaluation": {"maxExamples": 1, "maxNewTokens": 4, "general": {"enabled": False}},
    "archive": {"uri": "s3://archive/runs"},
}


class Desk:
    """A folder with a model, data, and the command line."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.results = folder / "results"

    def command(self, name: str = "run", **spec: Any) -> list[str]:
        """The command that runs the manifest with ``spec``."""
        path = self.folder / "dporun.yaml"
        path.write_text(json.dumps(dporun(name, SPEC | spec)))
        maps = [f"s3://bucket={self.folder}", f"s3://archive={self.folder / 'archive'}"]
        options = [option for text in maps for option in ("--map", text)]
        return [sys.executable, "-m", "dporun_cli", "run", "-f", str(path), "--local", str(self.results), *options]

    def run(self, name: str = "run", **spec: Any) -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        return subprocess.run(self.command(name, **spec), capture_output=True, text=True, check=False)

    def outcome(self, name: str = "run") -> Outcome:
        """What training said last."""
        return Outcome.model_validate_json((self.results / name / "outcome.json").read_text())


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    folder = tmp_path_factory.mktemp("desk")
    save_tiny_model(folder / "model")
    write_rows(folder / "train.jsonl", text_pairs(40, seed=1))
    write_rows(folder / "val.jsonl", text_pairs(8, seed=2))
    return Desk(folder)


@pytest.mark.slow(40)
@pytest.mark.timeout(900)
def test_a_run_stops_on_interrupt_goes_on_and_ends_archived(desk: Desk) -> None:
    with running(desk.command(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        lines = []
        for line in process.stdout:
            lines.append(line)
            if "training:" in line:
                break
        process.send_signal(signal.SIGINT)
        lines += process.stdout.readlines()
        process.wait()
    text = "".join(lines)
    assert process.returncode == 75, text
    assert "stopping: a checkpoint is being saved" in text
    assert "train: stopped; run the same command again to continue" in text
    stopped = desk.outcome()
    assert stopped.state is OutcomeState.PREEMPTED
    assert not (desk.folder / "archive").exists()

    again = desk.run()
    assert again.returncode == 0, again.stdout
    finished = desk.outcome()
    assert finished.state is OutcomeState.SUCCEEDED
    assert finished.resumed_from == f"checkpoint-{stopped.step}"
    archived = desk.folder / "archive" / "runs" / "run"
    assert (archived / "manifest.json").is_file()
    for words in ("accuracy", "reward margin", "best checkpoint", str(desk.results / "run" / "report.html")):
        assert words in again.stdout

    third = desk.run()
    assert third.returncode == 0
    assert "finished before" in third.stdout
    assert "started" not in third.stdout

    other = desk.run(lora={"rank": 4})
    assert other.returncode == 64
    assert "contains a run with other settings (lora.rank: 2 → 4)" in other.stdout


@slow
@pytest.mark.timeout(300)
def test_bad_data_ends_with_65_and_the_rows(desk: Desk) -> None:
    empty = {"prompt": "hello", "chosen": "yes", "rejected": ""}
    write_rows(desk.folder / "bad.jsonl", [*text_pairs(4), empty])
    result = desk.run("bad-data", dataset={"train": "s3://bucket/bad.jsonl", "validationFraction": 0.5})
    assert result.returncode == 65, result.stdout
    assert "prepare: failed (DatasetInvalid)" in result.stdout
    assert "(row 5 of bad.jsonl)" in " ".join(result.stdout.replace("│", " ").split())
    assert not (desk.results / "bad-data" / "outcome.json").exists()


@pytest.mark.slow(15)
@pytest.mark.timeout(300)
def test_a_run_that_fails_leaves_a_report_that_says_why(desk: Desk) -> None:
    result = desk.run("failing", training={"precision": "fp16"}, archive=SPEC["archive"] | {"when": "Succeeded"})
    assert result.returncode == 64, result.stdout
    assert desk.outcome("failing").state is OutcomeState.FAILED
    assert "DeepSpeed has no fp16 on CPU" in (desk.results / "failing" / "report.html").read_text()


@slow
@pytest.mark.timeout(120)
def test_a_bad_manifest_ends_with_64_and_starts_nothing(desk: Desk) -> None:
    result = desk.run("bad-manifest", training={"epochs": -1, "learnignRate": 1})
    assert result.returncode == 64
    assert "spec.training.epochs: must be greater than 0, not -1" in result.stderr
    assert "spec.training.learnignRate: unknown field" in result.stderr
    assert not (desk.results / "bad-manifest").exists()


@slow
@pytest.mark.timeout(120)
def test_the_other_commands(desk: Desk) -> None:
    def dporun_cli(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "dporun_cli", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    path = desk.folder / "good.yaml"
    path.write_text(yaml.safe_dump(dporun("good", SPEC)))
    assert dporun_cli("validate", "-f", str(path)).stdout == f"{path}: good is valid\n"
    assert "add --local DIR" in dporun_cli("run", "-f", str(path)).stderr
    assert dporun_cli("version").stdout.strip()
    assert "Overfitting" in dporun_cli("diagnose", str(UNHEALTHY / "overfit")).stdout


def test_a_folder_in_which_a_run_goes_on_is_left_alone(desk: Desk) -> None:
    directory = desk.results / "busy"
    directory.mkdir(parents=True)
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        result = desk.run("busy")
    assert result.returncode == 64
    assert f"another run is using {directory}" in result.stdout.replace("\n", "")
    assert not (directory / "run.json").exists()


def test_an_unwritable_place_is_told_without_a_traceback(desk: Desk) -> None:
    nowhere = Desk(desk.folder)
    nowhere.results = desk.folder / "train.jsonl" / "results"
    result = nowhere.run()
    assert result.returncode == 1, result.stderr
    assert f"--local {nowhere.results}: cannot write results there: Not a directory" in result.stdout
    assert "Traceback" not in result.stderr
