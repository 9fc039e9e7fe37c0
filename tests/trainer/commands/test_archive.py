"""The command ``archive``: the report of a run that has none, and the outcome of the command itself."""

import errno
import json
from pathlib import Path

import pytest

from dporun_api.pod import ExitCode
from dporun_api.results import Failure, Outcome, OutcomeState
from dporun_api.v1alpha1.reasons import Reason
from dporun_testing.run_folders import a_run, results
from dporun_trainer.__main__ import main
from dporun_trainer.commands.archive import report_and_archive
from dporun_trainer.run_folder import RunFolder


@pytest.mark.parametrize("prune_only", [False, True])
def test_failed_run_gets_its_report_and_model_card(tmp_path: Path, prune_only: bool) -> None:
    directory = results(tmp_path / "run", state=OutcomeState.FAILED, final=False)
    (directory / "report.html").unlink()
    failure = Failure(reason=Reason.NON_FINITE_LOSS, message="NaN at step 34", hint="Lower it.", log_tail="oh")
    ended = Outcome(state=OutcomeState.FAILED, message=failure.message, failure=failure)
    RunFolder(directory).outcome.write(ended)
    outcome = report_and_archive(a_run(str(tmp_path / "archive")), RunFolder(directory), prune_only=prune_only)
    where = directory if outcome.archive is None else Path(outcome.archive.uri)
    report = (where / "report.html").read_text(encoding="utf-8")
    assert all(words in report for words in ("NaN at step 34", "Lower it.", "<pre>oh</pre>"))
    assert (where / "report.png").read_bytes().startswith(b"\x89PNG")
    assert (where / "README.md").is_file()


def test_run_that_preparation_refused_gets_its_report(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    failure = Failure(reason=Reason.DATASET_INVALID, message="row 3 has an empty chosen")
    ended = Outcome(state=OutcomeState.FAILED, message=failure.message, failure=failure)
    RunFolder(directory).prepare_outcome.write(ended)
    report_and_archive(a_run(None), RunFolder(directory))
    assert "row 3 has an empty chosen" in (directory / "report.html").read_text(encoding="utf-8")


def test_stopped_run_says_so_in_its_report(tmp_path: Path) -> None:
    directory = results(tmp_path / "run", state=OutcomeState.PREEMPTED, final=False)
    stopped = Outcome(state=OutcomeState.PREEMPTED, message="Preempted: saved at step 30.")
    RunFolder(directory).outcome.write(stopped)
    report_and_archive(a_run(None), RunFolder(directory))
    report = (directory / "report.html").read_text(encoding="utf-8")
    assert "Stopped" in report
    assert "Preempted: saved at step 30." in report


def test_report_of_a_finished_run_stays_as_it_is(tmp_path: Path) -> None:
    directory = results(tmp_path / "run")
    report_and_archive(a_run(None), RunFolder(directory))
    assert (directory / "report.html").read_bytes() == b"<html>"


def test_a_failing_report_does_not_keep_from_archiving(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    directory = results(tmp_path / "run", state=OutcomeState.FAILED, final=False)

    def full(_: RunFolder) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("dporun_trainer.commands.archive.report", full)
    result = report_and_archive(a_run(str(tmp_path / "archive")), RunFolder(directory)).archive
    assert result
    assert (Path(result.uri) / "checkpoint-20" / "COMPLETE").is_file()
    assert "No space left" in caplog.text


def test_command_writes_its_outcome(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = a_run(str(tmp_path / "archive"))
    directory = results(tmp_path / config.run.directory)
    (tmp_path / "run.json").write_text(config.to_json())
    message = tmp_path / "termination-log"
    message.touch()
    monkeypatch.setenv("DPORUN_TERMINATION_LOG", str(message))
    assert main(["archive", "--config", str(tmp_path / "run.json"), "--root", str(tmp_path)]) == ExitCode.OK
    outcome = json.loads((directory / "archive_outcome.json").read_text())
    assert outcome == json.loads(message.read_text())
    assert outcome["archive"]["uri"] == f"{tmp_path}/archive/tone-1a2b3c4d"
