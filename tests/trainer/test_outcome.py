"""However a command ends, one Outcome tells it: on the volume, in the termination message, by the exit code."""

import errno
import json
from pathlib import Path

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dporun_api.pod import ExitCode
from dporun_api.results import (
    ArchiveResult,
    DatasetSummary,
    Failure,
    Health,
    Metrics,
    Outcome,
    OutcomeState,
    Suggestion,
    Verdict,
    VerdictState,
)
from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer.errors import RunError
from dporun_trainer.outcome import conclude, exit_code, failed, publish, termination_message
from dporun_trainer.run_folder import RunFolder


@pytest.fixture
def message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The container's termination message."""
    path = tmp_path / "termination-log"
    path.touch()
    monkeypatch.setenv("DPORUN_TERMINATION_LOG", str(path))
    return path


def test_success(message: Path, tmp_path: Path) -> None:
    outcome = Outcome(state=OutcomeState.SUCCEEDED, message="done", step=4)
    assert conclude(lambda: outcome, RunFolder(tmp_path / "run").outcome.write, tmp_path) is ExitCode.OK
    assert Outcome.model_validate_json((tmp_path / "run" / "outcome.json").read_text()) == outcome
    assert Outcome.model_validate_json(message.read_text()) == outcome


def raising(error: Exception) -> Outcome:
    raise error


@pytest.mark.parametrize(
    ("error", "reason", "code", "words"),
    [
        (RunError(Reason.DATASET_INVALID, "row 3"), Reason.DATASET_INVALID, 65, "row 3"),
        (OSError(errno.ENOSPC, "No space left"), Reason.DISK_FULL, 1, "no space left on the volume"),
        (OSError(errno.EDQUOT, "Quota", "/v/x"), Reason.DISK_FULL, 1, "writing /v/x"),
        (
            torch.OutOfMemoryError("Tried to allocate 2 GiB\nmore"),
            Reason.GPU_OUT_OF_MEMORY,
            66,
            "allocate 2 GiB",
        ),
        (ZeroDivisionError("by zero"), Reason.TRAINER_ERROR, 1, "ZeroDivisionError: by zero"),
    ],
)
def test_every_error_becomes_a_failure(
    message: Path, tmp_path: Path, error: Exception, reason: Reason, code: int, words: str
) -> None:
    file = RunFolder(tmp_path).outcome
    assert conclude(lambda: raising(error), file.write, tmp_path) == code
    outcome = file.load()
    assert outcome.state is OutcomeState.FAILED
    assert outcome.failure
    assert outcome.failure.reason is reason
    assert outcome.failure.exit_code == code
    assert words in outcome.failure.message
    assert json.loads(message.read_text())["failure"]["reason"] == reason


def test_unforeseen_error_keeps_its_traceback(
    tmp_path: Path, message: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    conclude(lambda: raising(ZeroDivisionError("by zero")), RunFolder(tmp_path).outcome.write, tmp_path)
    assert "Traceback" in capsys.readouterr().err
    assert "ZeroDivisionError" in json.loads(message.read_text())["failure"]["logTail"]


def test_full_volume_does_not_silence_the_message(message: Path) -> None:
    def full(_: Outcome) -> None:
        raise OSError(errno.ENOSPC, "No space left", "/nowhere/outcome.json")

    publish(Outcome(state=OutcomeState.SUCCEEDED, message="done"), full)
    assert json.loads(message.read_text())["message"] == "done"


def test_without_a_container_there_is_no_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DPORUN_TERMINATION_LOG", str(tmp_path / "none"))
    publish(Outcome(state=OutcomeState.SUCCEEDED), RunFolder(tmp_path).outcome.write)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        (Outcome(state=OutcomeState.SUCCEEDED), ExitCode.OK),
        (Outcome(state=OutcomeState.PREEMPTED), ExitCode.PREEMPTED),
        (Outcome(state=OutcomeState.FAILED), ExitCode.ERROR),
        (failed(RunError(Reason.NON_FINITE_LOSS, "m")), ExitCode.NON_FINITE),
        (
            Outcome(
                state=OutcomeState.FAILED,
                failure=Failure(reason=Reason.TRAINER_ERROR, message="m", exit_code=-9),
            ),
            ExitCode.ERROR,
        ),
    ],
)
def test_exit_code(outcome: Outcome, code: ExitCode) -> None:
    assert exit_code(outcome) is code


long_text = st.text(max_size=1024)


@settings(max_examples=50, deadline=None)
@given(words=st.lists(long_text, max_size=20), text=long_text, tail=st.text(max_size=2048), key=st.just("x" * 1000))
@example(words=["😀" * 1024] * 20, text="😀" * 1024, tail="😀" * 2048, key="ü" * 1000)
@example(words=["\x01" * 1024] * 20, text="\x01" * 1024, tail="\x01" * 2048, key="ü" * 1000)
def test_message_fits_and_keeps_what_decides(words: list[str], text: str, tail: str, key: str) -> None:
    outcome = Outcome(
        state=OutcomeState.FAILED,
        message=text,
        failure=Failure(reason=Reason.STALLED, message=text, hint=text[:512], exit_code=1, log_tail=tail),
        dataset=DatasetSummary(train_rows=1, validation_rows=1, warnings=tuple(words)),
        metrics=Metrics(train_loss=0.5),
        health=Health(evidence=tuple(words), suggestions=(Suggestion(path="spec.training", reason=text[:512]),) * 10),
        verdict=Verdict(state=VerdictState.FAIR, passed=False, reasons=tuple(words)),
        archive=ArchiveResult(uri=f"s3://b/{key}", manifest_sha256="0" * 64, files=1, bytes=1),
    )
    cut = termination_message(outcome)
    assert len(cut.encode()) <= 4096
    read = Outcome.model_validate_json(cut)
    assert read.state is OutcomeState.FAILED
    assert read.failure
    assert read.failure.reason is Reason.STALLED
    assert read.failure.exit_code == 1
    assert read.archive == outcome.archive
