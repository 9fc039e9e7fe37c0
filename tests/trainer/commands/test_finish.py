"""What follows training: every file, in any number of attempts."""

import json
import os
import shutil
import signal
import sys
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen
from typing import Any

import pytest
import torch

from dporun_api.results import Outcome, OutcomeState, Progress, Stage
from dporun_api.run_config import RunConfig
from dporun_api.v1alpha1.reasons import Reason
from dporun_testing import tiny_model
from dporun_testing.adapters import save_random_adapter
from dporun_testing.processes import running
from dporun_testing.training import a_config, prepare
from dporun_trainer.commands import finish as finishing
from dporun_trainer.commands.finish import finish
from dporun_trainer.errors import RunError
from dporun_trainer.evaluation import assess
from dporun_trainer.evaluation import merge as merging
from dporun_trainer.progress import TRAINING_PERCENT, ProgressFile
from dporun_trainer.run_folder import RunFolder
from dporun_trainer.signals import Stopped

WRITTEN = [
    "evaluation/comparison_results.json",
    "evaluation/evaluation_metrics.json",
    "evaluation/forgetting.json",
    "health.json",
    "merged/merge.json",
    "merged/model.safetensors",
    "report.html",
    "verdict.json",
]
QUESTIONS = [{"question": f"what is {word}", "answer": word} for word in ("apple", "red", "delta", "kilo")]


def config(**evaluation: Any) -> RunConfig:
    return a_config(evaluation={"enabled": True, "max_examples": 3, "max_new_tokens": 4} | evaluation)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return tiny_model.save_tiny_model(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def trained(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's directory as training leaves it."""
    directory = prepare(config(), tmp_path_factory.mktemp("runs"), base)
    general = tiny_model.write_rows(directory / "inputs/general.jsonl", QUESTIONS)
    folder = RunFolder(directory)
    folder.prepared.write(folder.load_prepared().model_copy(update={"general_path": str(general)}))
    save_random_adapter(base, directory / "final")
    history = [
        {"step": step, "epoch": step / 8, "loss": 0.7 - step / 50, "grad_norm": 1.0, "learning_rate": 5e-3}
        for step in range(1, 17)
    ]
    folder.history.replace(history)
    folder.progress.update(
        stage=Stage.TRAINING, percent=TRAINING_PERCENT, step=16, total_steps=16, metrics={"train_loss": 0.4}
    )
    return directory


@dataclass(frozen=True)
class Finished:
    directory: Path
    outcome: Outcome
    progress: list[Progress]


@pytest.fixture(scope="module")
def finished(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """That run finished, with every progress it told."""
    directory = Path(shutil.copytree(trained, tmp_path_factory.mktemp("finished") / "run"))
    seen: list[Progress] = []
    update = ProgressFile.update

    def recorded(self: ProgressFile, **changes: Any) -> None:
        update(self, **changes)
        seen.append(self.read())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ProgressFile, "update", recorded)
        patch.setattr(finishing, "_REPORT_SECONDS", 0)
        return Finished(directory, finish(config(), RunFolder(directory)), seen)


@pytest.fixture
def again(finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Another copy of the finished run, whose report takes no time."""
    monkeypatch.setattr(finishing, "report", lambda _: None)
    return Path(shutil.copytree(finished.directory, tmp_path / "run"))


@pytest.fixture
def directory(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the trained run, whose report takes no time."""
    monkeypatch.setattr(finishing, "report", lambda _: None)
    return Path(shutil.copytree(trained, tmp_path / "run"))


def test_finishing_leaves_every_file_and_tells_the_result(finished: Finished) -> None:
    directory, outcome = finished.directory, finished.outcome
    assert [name for name in WRITTEN if not (directory / name).is_file()] == []
    assert outcome.state is OutcomeState.SUCCEEDED
    assert outcome.evaluation is not None
    assert outcome.health is not None
    assert outcome.verdict is not None
    assert outcome.metrics is not None
    assert outcome.metrics.train_loss == 0.4
    numbers = json.loads((directory / "evaluation/evaluation_metrics.json").read_text())
    assert outcome.evaluation.reward_margin == numbers["reward_margin"]
    assert outcome.evaluation.examples == numbers["examples"] == 6
    forgetting = json.loads((directory / "evaluation/forgetting.json").read_text())
    assert outcome.evaluation.forgetting == numbers["forgetting"] == forgetting["score"]
    assert outcome.evaluation.known_questions == numbers["known_questions"] == forgetting["base_right"]
    assert json.loads((directory / "verdict.json").read_text())["state"] == outcome.verdict.state
    assert not outcome.verdict.passed
    assert "accuracy undecided, rewardMargin undecided" in outcome.message  # of six pairs


def test_progress_only_rises_and_says_what_is_done(finished: Finished) -> None:
    percents = [progress.percent for progress in finished.progress]
    assert percents == sorted(percents)
    assert percents[0] >= TRAINING_PERCENT
    last = finished.progress[-1]
    assert (last.stage, last.percent, last.step) == (Stage.REPORTING, 99, 16)
    details = [progress.detail for progress in finished.progress]
    for expected in ("loading", "scoring 6/6", "generating 3/3", "asking general questions 4/4", "merging"):
        assert expected in details
    assert any(progress.eta_seconds for progress in finished.progress)


def test_a_finished_run_is_not_evaluated_or_merged_again(
    finished: Finished, again: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("done already")

    for module, name in ((assess, "evaluate"), (assess, "measure"), (merging, "load_model")):
        monkeypatch.setattr(module, name, never)
    assert finish(config(), RunFolder(again)) == finished.outcome


def test_another_adapter_is_evaluated_anew(base: Path, finished: Finished, again: Path) -> None:
    save_random_adapter(base, again / "final", seed=5)
    second = finish(config(), RunFolder(again))
    assert finished.outcome.evaluation is not None
    assert second.evaluation is not None
    assert second.evaluation.reward_margin != finished.outcome.evaluation.reward_margin
    assert merging.is_merged(again / "merged", again / "final")


def test_a_torn_result_is_made_anew(finished: Finished, again: Path) -> None:
    (again / "evaluation/evaluation_metrics.json").write_text('{"accuracy": 1')
    assert finish(config(), RunFolder(again)) == finished.outcome


def test_a_pod_stopped_again_and_again_goes_on_where_it_was(
    finished: Finished, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell = finishing._Meter.__call__
    kept: dict[str, bytes] = {}
    for stage, there, missing in (
        ("generating", [], "evaluation/evaluation_metrics.json"),
        ("asking general questions", ["evaluation/comparison_results.json"], "evaluation/forgetting.json"),
        ("merging", ["evaluation/evaluation_metrics.json", "evaluation/forgetting.json"], "merged"),
        ("reporting", ["merged/merge.json"], "verdict.json"),
    ):

        def stopping(self: Any, now: str, done: int, total: int, stage: str = stage) -> None:
            tell(self, now, done, total)
            if now == stage:
                raise Stopped

        with monkeypatch.context() as patch:
            patch.setattr(finishing._Meter, "__call__", stopping)
            outcome = finish(config(), RunFolder(directory))
        assert outcome.state is OutcomeState.PREEMPTED
        assert stage in outcome.message
        assert not (directory / missing).exists()
        kept |= {name: (directory / name).read_bytes() for name in there}
    assert finish(config(), RunFolder(directory)) == finished.outcome
    assert {name: (directory / name).read_bytes() for name in kept} == kept


def test_without_evaluation_the_run_is_merged_and_judged(directory: Path) -> None:
    outcome = finish(config(enabled=False), RunFolder(directory))
    assert outcome.evaluation is None
    assert outcome.verdict is not None
    assert (outcome.verdict.passed, outcome.verdict.gates) == (False, ())
    assert not (directory / "evaluation").exists()
    assert (directory / "merged/merge.json").is_file()


def test_an_unfaithful_merge_is_said_and_loses_nothing(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from peft import LoraModel

    monkeypatch.setattr(LoraModel, "merge_and_unload", lambda self, **_: self.unload())
    outcome = finish(config(), RunFolder(directory))
    assert outcome.state is OutcomeState.SUCCEEDED
    assert outcome.verdict is not None
    assert "merged/ is not there: the merged model is not the adapted one" in outcome.verdict.reasons[-1]
    assert outcome.verdict.reasons[-1] in (directory / "verdict.json").read_text()
    assert not (directory / "merged").exists()


def test_without_general_questions_forgetting_is_unknown(directory: Path) -> None:
    outcome = finish(config(general={"enabled": False}), RunFolder(directory))
    assert outcome.evaluation is not None
    assert outcome.evaluation.forgetting is None
    assert outcome.verdict is not None
    assert "forgetting" not in [gate.name for gate in outcome.verdict.gates]
    assert not (directory / "evaluation/forgetting.json").exists()


def test_a_run_that_was_not_trained_cannot_be_finished(directory: Path) -> None:
    shutil.rmtree(directory / "final")
    with pytest.raises(RunError, match="no trained adapter"):
        finish(config(), RunFolder(directory))


def finish_process(directory: Path, settings: RunConfig, *arguments: str) -> AbstractContextManager[Popen[Any]]:
    file = directory.parent / "run.json"
    file.write_text(settings.to_json())
    command = [sys.executable, "-m", "dporun_trainer.commands.finish", "--config", str(file)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return running([*command, "--directory", str(directory), *arguments], env=environment)


def until_it_evaluates(directory: Path, process: "Popen[Any]") -> None:
    progress = ProgressFile(directory / "progress.json")
    while (progress.read().detail or "").split(" ")[0] not in {"scoring", "generating"}:
        assert process.poll() is None, "it ended before it evaluated"
        time.sleep(0.05)


@pytest.mark.slow(20)
def test_a_killed_process_is_named_and_the_next_attempt_goes_on(directory: Path) -> None:
    pairs = tiny_model.write_rows(directory / "inputs/more.jsonl", tiny_model.chat_pairs(20, seed=1))  # several batches
    prepared = RunFolder(directory).load_prepared()
    RunFolder(directory).prepared.write(prepared.model_copy(update={"validation_path": str(pairs)}))
    with finish_process(directory, config(max_new_tokens=400), "--processes", "2") as process:
        until_it_evaluates(directory, process)
        child = max(int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split())
        os.kill(child, signal.SIGKILL)
        assert process.wait() == 1
    failure = RunFolder(directory).finish_outcome.load().failure
    assert failure is not None
    assert failure.message == "evaluation process 1 of 2 ended with signal 9; training is done and kept"
    assert failure.reason is Reason.TRAINER_ERROR
    assert failure.reason.traits.retried
    assert finish(config(), RunFolder(directory)).state is OutcomeState.SUCCEEDED


@pytest.mark.slow
def test_sigterm_ends_the_process_with_75_and_an_outcome(directory: Path) -> None:
    with finish_process(directory, config(max_new_tokens=400)) as process:
        until_it_evaluates(directory, process)
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 75
    outcome = json.loads((directory / "finish_outcome.json").read_text())
    assert outcome["state"] == "Preempted"
    assert outcome["metrics"]["trainLoss"] == 0.4
