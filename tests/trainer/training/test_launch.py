"""The launcher and two real training processes under ZeRO-2; no GPU, gloo."""

import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dporun_api.results import Outcome, OutcomeState
from dporun_api.run_config import RunConfig
from dporun_api.v1alpha1.reasons import Reason
from dporun_testing import training
from dporun_testing.processes import PolledEvent, running
from dporun_testing.training import a_config
from dporun_trainer.commands.train import TRAIN_PROCESS, arguments_of
from dporun_trainer.errors import RunError
from dporun_trainer.outcome import exit_code
from dporun_trainer.progress import ProgressFile
from dporun_trainer.run_folder import RunFolder, checkpoints
from dporun_trainer.run_folder.checkpoints import Checkpoints
from dporun_trainer.training import launch

TWO = {"processes_per_node": 2}


def words_after(command: list[str], flag: str) -> str:
    return command[command.index(flag) + 1]


def test_the_command_names_every_flag() -> None:
    config = a_config(topology={"nodes": 2, "processes_per_node": 4, "deepspeed": {"zero_stage": 1}})
    arguments = arguments_of(TRAIN_PROCESS, Path("run.json"), RunFolder(Path("results")))
    command = launch.accelerate_command(config, arguments, node=1, address="run-0.run", port=29500)
    flags = {
        "--num_processes": "8",
        "--num_machines": "2",
        "--machine_rank": "1",
        "--main_process_ip": "run-0.run",
        "--main_process_port": "29500",
        "--zero_stage": "1",
        "--deepspeed_multinode_launcher": "standard",
        "--module": "dporun_trainer.commands.train_process",
        "--config": "run.json",
        "--directory": "results",
    }
    assert {flag: words_after(command, flag) for flag in flags} == flags


def test_the_processes_are_offline_and_have_time_to_save() -> None:
    environment = {"PET_NNODES": "7", "HOME": "/home/trainer"}
    made = launch.training_environment(a_config(grace_period_seconds=120), environment, Path("ends"))
    assert made["HF_HUB_OFFLINE"] == made["HF_HUB_DISABLE_TELEMETRY"] == "1"
    assert "PET_NNODES" not in made
    assert made["HOME"] == "/home/trainer"
    assert 60 <= int(made["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"]) < 120


def test_a_run_sets_variables_of_nccl_over_the_administrator_s() -> None:
    config = a_config(topology={"environment": {"NCCL_DEBUG": "INFO", "PYTORCH_ALLOC_CONF": "backend:native"}})
    pod = {"NCCL_DEBUG": "WARN", "NCCL_SOCKET_IFNAME": "eth0"}
    environment = launch.training_environment(config, pod, Path("ends"))
    assert environment["NCCL_DEBUG"] == "INFO"
    assert environment["NCCL_SOCKET_IFNAME"] == "eth0"
    assert environment["PYTORCH_ALLOC_CONF"] == "backend:native"
    default = launch.training_environment(a_config(), pod, Path("ends"))
    assert default["PYTORCH_ALLOC_CONF"] == "expandable_segments:True"


def test_the_evaluation_s_memory_is_segmented_like_training_s() -> None:
    assert launch.offline({})["PYTORCH_ALLOC_CONF"] == "expandable_segments:True"
    assert launch.offline({"PYTORCH_ALLOC_CONF": "backend:native"})["PYTORCH_ALLOC_CONF"] == "backend:native"


def test_the_processes_hold_no_keys_of_a_cloud() -> None:
    keys = {"ARCHIVE_AWS_SECRET_ACCESS_KEY": "s", "AWS_SECRET_ACCESS_KEY": "s", "AWS_WEB_IDENTITY_TOKEN_FILE": "/token"}
    made = launch.training_environment(a_config(), {**keys, "HOME": "/home/trainer"}, Path("ends"))
    assert not keys.keys() & made.keys()


@pytest.mark.parametrize("index", ["2", "-1", "x"])
def test_a_pod_that_is_none_of_the_nodes_is_refused(index: str) -> None:
    with pytest.raises(RunError, match="JOB_COMPLETION_INDEX"):
        launch.node_rank({"JOB_COMPLETION_INDEX": index}, a_config(topology={"nodes": 2}))


def test_several_nodes_need_the_address_of_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DPORUN_MAIN_ADDRESS", raising=False)
    with pytest.raises(RunError, match="DPORUN_MAIN_ADDRESS"):
        launch.train(a_config(topology={"nodes": 2}), RunFolder(Path()), [], node=0, stop=threading.Event())


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel of Linux does this")
def test_a_training_process_dies_with_its_launcher() -> None:
    child = "import signal; from dporun_trainer import signals as child; child.die_with_parent(); "
    child += "print(flush=True); signal.pause()"
    launcher = f"import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', {child!r}], start_new_session=True"
    launcher += "); print(p.pid, flush=True); p.wait()"
    with running([sys.executable, "-c", launcher], stdout=subprocess.PIPE, text=True) as process:
        pid = int(process.stdout.readline())
        process.stdout.readline()  # the child is ready
        watched = os.pidfd_open(pid)
        process.kill()
        outlived = not select.select([watched], [], [], 30)[0]
        if outlived:
            os.kill(pid, signal.SIGKILL)
        os.close(watched)
    assert not outlived


def run(
    config: RunConfig, directory: Path, *, when: Callable[[], bool], then: Callable[[threading.Event], None]
) -> Outcome:
    """Train with real processes and do something ``then``, once, ``when`` a condition holds."""
    stop, ended = threading.Event(), threading.Event()

    def watch() -> None:
        while not ended.wait(0.02):
            if when():
                then(stop)
                return

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        path = training.config_path(config, directory.parent)
        folder = RunFolder(directory)
        return launch.train(config, folder, arguments_of(TRAIN_PROCESS, path, folder), node=0, stop=stop)
    finally:
        ended.set()
        watcher.join()


def is_past(directory: Path, step: int) -> Callable[[], bool]:
    progress = ProgressFile(directory / "progress.json")
    return lambda: progress.read().step >= step


@pytest.mark.slow(15)
@pytest.mark.parametrize("stopper", ["launcher", "somebody"])
def test_stopped_while_loading_ends_at_once(model: Path, tmp_path: Path, stopper: str) -> None:
    """Whoever sends the signal, and to one process of several only: nothing was trained, so nothing is saved."""
    config = a_config("loading", topology=TWO)
    directory = training.prepare(config, tmp_path, model)

    def end(stop: threading.Event) -> None:
        if stopper == "launcher":
            stop.set()
        else:
            os.kill(training.ranks_of(directory)[1], signal.SIGTERM)

    outcome = run(config, directory, when=lambda: len(training.ranks_of(directory)) == 2, then=end)
    assert (outcome.state, exit_code(outcome)) == (OutcomeState.PREEMPTED, 75)
    assert "before there was anything" in outcome.message
    assert not RunFolder(directory).training_config.path.exists()  # which is written when loading is done


def silent_process(tmp_path: Path, stall_seconds: float | None) -> launch.Ended:
    """A process that ends when it is asked to, which happens once it has begun."""
    command = [sys.executable, "-c", "import time; print(flush=True); time.sleep(600)"]
    stop = PolledEvent()
    if stall_seconds is None:
        stop.set()
    return launch.run_process(command, os.environ, RunFolder(tmp_path), stop, stall_seconds=stall_seconds)


def test_a_process_without_a_heartbeat_is_ended(tmp_path: Path) -> None:
    ended = silent_process(tmp_path, stall_seconds=0.1)
    assert (ended.stalled, ended.exit_code, ended.asked_at) == (0.1, -signal.SIGKILL, None)
    ended = silent_process(tmp_path, stall_seconds=None)
    assert (ended.stalled, ended.exit_code) == (None, -signal.SIGTERM)
    assert ended.asked_at is not None


def test_what_says_why_a_gpu_failed_is_kept(tmp_path: Path) -> None:
    """Eight ranks' C++ stacks follow the line that matters."""
    says = "print('[rank2]: CUDA error: uncorrectable ECC error encountered'); [print('frame') for _ in range(400)]"
    command = [sys.executable, "-uc", f"{says}; import os; os.abort()"]
    ended = launch.run_process(command, os.environ, RunFolder(tmp_path), PolledEvent())
    assert "ECC" not in ended.log_tail
    assert ended.telling == "[rank2]: CUDA error: uncorrectable ECC error encountered\n"


def test_the_operator_calls_an_attempt_stalled_first() -> None:
    config = a_config(stall_seconds=600)
    assert launch.stall_limit(config) > config.stall_seconds


@pytest.mark.slow(60)
def test_stopped_and_resumed_with_two_processes(model: Path, tmp_path: Path) -> None:
    """SIGTERM reaches both processes; the next attempt ends as two processes in one attempt do."""
    config = a_config("stopped", topology=TWO, training={"epochs": 6, "gradient_accumulation_steps": 2})
    directory = training.prepare(config, tmp_path, model)
    outcome = run(config, directory, when=is_past(directory, 3), then=lambda stop: stop.set())
    assert (outcome.state, exit_code(outcome)) == (OutcomeState.PREEMPTED, 75)
    newest = checkpoints.newest_complete(Checkpoints(directory).complete())
    assert newest is not None
    assert newest.step == outcome.step
    assert {"rng_state_0.pth", "rng_state_1.pth", "ledger_0.json", "ledger_1.json"} <= newest.marker.files.keys()
    assert sum("optim_states" in name for name in newest.marker.files) == 2

    alone = shutil.copytree(directory, tmp_path / "alone" / directory.name)
    goes_on_alone(a_config("stopped", training={"epochs": 6, "gradient_accumulation_steps": 4}), alone, newest.step)

    other = a_config("whole", topology=TWO, training={"epochs": 6, "gradient_accumulation_steps": 2})
    whole = training.prepare(other, tmp_path, model)
    for one, place in ((config, directory), (other, whole)):
        outcome = run(one, place, when=lambda: False, then=lambda _: None)
        assert outcome.state is OutcomeState.SUCCEEDED, outcome
    assert training.history(directory) == training.history(whole)
    assert training.adapter_difference(directory / "final", whole / "final") == 0
    assert ProgressFile(directory / "progress.json").read().resumed_from == newest.path.name


def goes_on_alone(config: RunConfig, directory: Path, step: int) -> None:
    """Go on with one process and the same effective batch: from the weights, at the right step."""
    from safetensors.torch import load_file

    saved = load_file(Checkpoints(directory).folder(step) / "adapter_model.safetensors")
    before = training.history(directory)
    seen: list[float] = []

    def compare_weights(trainer: Any, _: threading.Event) -> None:
        from transformers import TrainerCallback

        class Compare(TrainerCallback):
            def on_train_begin(self, *_: Any, **_named: Any) -> None:
                now = dict(trainer.model.named_parameters())
                for name, weight in saved.items():
                    ours = now[name.replace(".weight", ".default.weight")]
                    seen.append((ours - weight).abs().max().item())

        trainer.add_callback(Compare())

    with training.single_process():
        trainer = training.attempt(config, directory, on_trainer=compare_weights)
    assert seen
    assert set(seen) == {0.0}
    assert trainer.run.resumed.step == step
    history = training.history(directory)
    assert history[: len(before)] == before
    assert [entry["step"] for entry in history if "loss" in entry] == list(range(1, trainer.state.max_steps + 1))


@pytest.mark.slow(25)
def test_a_killed_process_ends_the_run_and_loses_nothing(model: Path, tmp_path: Path) -> None:
    """One of two processes is killed; until then, they learned what one process learns with the same global batch."""
    one_epoch = {"epochs": 500, "gradient_accumulation_steps": 1}
    config = a_config("killed", topology=TWO, lora={"dropout": 0.0}, training=one_epoch)
    directory = training.prepare(config, tmp_path, model)
    outcome = run(
        config,
        directory,
        when=lambda: is_past(directory, 6)() and bool(Checkpoints(directory).complete()),
        then=lambda _: os.kill(training.ranks_of(directory)[1], signal.SIGKILL),
    )
    assert outcome.failure is not None
    assert outcome.failure.reason is Reason.TRAINER_ERROR
    assert outcome.failure.rank == 1
    assert "SIGKILL" in outcome.failure.message
    assert Checkpoints(directory).complete()
    deadline = time.monotonic() + 60
    while training.ranks_of(directory):
        assert time.monotonic() < deadline, "a training process was left behind"
        time.sleep(0.1)

    from dporun_trainer.training.trainer import Preempted

    alone = a_config("alone", lora={"dropout": 0.0}, training={"epochs": 500})
    place = training.prepare(alone, tmp_path, model)
    with training.single_process(), pytest.raises(Preempted):
        training.attempt(alone, place, on_trainer=training.stop_at_step(5))
    both = [[entry for entry in training.history(one)[:5] if "loss" in entry] for one in (directory, place)]
    for two, single in zip(*both, strict=True):
        for name in ("loss", "grad_norm", "rewards/margins", "learning_rate"):
            assert two[name] == pytest.approx(single[name], rel=1e-4, abs=1e-6), name
