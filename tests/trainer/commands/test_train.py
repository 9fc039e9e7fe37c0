"""``dporun-trainer train`` as a process, as the pod runs it: uploads, an outage of the store, a lost volume."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dporun_api.pod import NODE_INDEX_VARIABLE, NODE_NAME_VARIABLE, ExitCode
from dporun_api.results import Outcome, OutcomeState
from dporun_api.run_config import RunConfig
from dporun_api.v1alpha1.reasons import Reason
from dporun_testing import s3_server, training
from dporun_testing.processes import running
from dporun_trainer.errors import RunError
from dporun_trainer.run_folder import RunFolder


@contextlib.contextmanager
def trainer(config: RunConfig, root: Path, server: s3_server.S3Server) -> "Iterator[subprocess.Popen[bytes]]":
    """The process of a pod: it has the Secret of the archive, as the operator gives it."""
    secret = {f"ARCHIVE_{name}": value for name, value in server.environment.items()}
    arguments = ["--config", str(training.config_path(config, root)), "--root", str(root), "--port", "0"]
    command = [sys.executable, "-m", "dporun_trainer", "train", *arguments]
    with running(command, env={**os.environ, **secret, "OMP_NUM_THREADS": "1"}) as process:
        yield process


def wait_until(holds: Callable[[], bool], process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 120
    while not holds():
        assert process.poll() is None, "it ended"
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow(40)
def test_an_outage_and_a_lost_volume(tiny_model: Path, tmp_path: Path) -> None:
    """The store is gone in the middle of training, then the volume: no step waits, and what was uploaded is used."""
    config = training.a_config("outage", training={"epochs": 100}, archive={"uri": "s3://bucket/runs"})
    first = RunFolder(training.prepare(config, tmp_path / "one", tiny_model))
    second = RunFolder(training.prepare(config, tmp_path / "two", tiny_model))

    with contextlib.ExitStack() as until_the_outage:
        server = until_the_outage.enter_context(s3_server.serve(tmp_path / "s3"))
        server.bucket("bucket")
        with trainer(config, tmp_path / "one", server) as process:
            wait_until(lambda: step_uploaded(first) > 0, process)
            until_the_outage.close()
            reached = step_uploaded(first) + 8  # two more checkpoints
            wait_until(lambda: first.progress.read().step >= reached, process)
            process.send_signal(signal.SIGTERM)
            assert process.wait(120) == ExitCode.PREEMPTED
    outcome = first.outcome.load()
    upload, newest = outcome.checkpoint_upload, first.checkpoints.newest()
    assert upload
    assert newest
    assert upload.problem
    assert upload.checkpoint == f"checkpoint-{upload.step}"
    assert upload.step is not None
    assert upload.step < newest.step == outcome.step

    with s3_server.serve(tmp_path / "s3") as server, trainer(config, tmp_path / "two", server) as process:
        wait_until(lambda: second.progress.read().step > newest.step, process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == ExitCode.PREEMPTED
    outcome = second.outcome.load()
    assert outcome.resumed_from == upload.checkpoint
    assert outcome.checkpoint_upload
    assert (outcome.checkpoint_upload.step, outcome.checkpoint_upload.problem) == (outcome.step, None)
    before = training.history(first.path)
    assert training.history(second.path)[: len(before)] == before


def step_uploaded(folder: RunFolder) -> int:
    upload = folder.checkpoint_upload.read()
    return (upload.step if upload else None) or 0


def test_a_failed_gpu_is_named_with_its_node(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For kubectl cordon; the training process itself knows nothing of the cluster."""
    from dporun_trainer.commands import train

    failure = RunError(Reason.GPU_FAULT, "a GPU is broken: CUDA error: uncorrectable ECC error encountered").failure()
    failed = Outcome(state=OutcomeState.FAILED, message=failure.message, failure=failure)
    monkeypatch.setattr(train, "train", lambda *_, **_named: failed)
    monkeypatch.setenv(NODE_NAME_VARIABLE, "gpu-7")
    config = training.a_config("fault")
    folder = RunFolder(training.prepare(config, tmp_path, tiny_model))
    ended = train.launch(config, training.config_path(config, tmp_path), folder, port=0)
    assert ended.failure
    assert ended.failure.message == f"{failure.message} (node gpu-7)"


def test_another_node_leaves_when_training_ends(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its GPUs are free while the first node evaluates."""
    from dporun_trainer.commands import train

    trained = Outcome(state=OutcomeState.SUCCEEDED, message="trained")
    monkeypatch.setattr(train, "train", lambda *_, **_named: trained)
    monkeypatch.setenv(NODE_INDEX_VARIABLE, "1")
    config = training.a_config("two", topology={"nodes": 2})
    folder = RunFolder(training.prepare(config, tmp_path, tiny_model))
    ended = train.launch(config, training.config_path(config, tmp_path), folder, port=0)
    assert ended.state is OutcomeState.SUCCEEDED
    assert "node 0 evaluates" in ended.message
    assert folder.finish_outcome.read() is None
