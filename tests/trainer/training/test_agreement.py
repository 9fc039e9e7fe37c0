"""Two processes that see the same volume differently: what the first one decides is done, or nothing is."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dporun_testing.ports import free_port
from dporun_testing.processes import running
from dporun_trainer.errors import RunError
from dporun_trainer.run_folder import RunFolder
from dporun_trainer.run_folder.checkpoints import Checkpoints, Marker, mark_complete
from dporun_trainer.training.ranks import tells_of_lost_contact

PROCESS = """
import sys, torch.distributed as dist
from pathlib import Path
from dporun_trainer.errors import RunError
from dporun_trainer.run_folder import RunFolder
from dporun_trainer.training.agreement import agree_on_start, anywhere
rank, view = int(sys.argv[1]), Path(sys.argv[2])
dist.init_process_group("gloo", init_method=sys.argv[3], rank=rank, world_size=2)
for name in ("trained", "other", "lagging"):
    folder = RunFolder(view / name)
    common = {"steps": 8, "precision": ("bf16", "fp16")[rank] if name == "other" else "bf16"}
    try:
        start = agree_on_start(folder, rank, folder.checkpoints.newest, common)
        print(name, start.trained, start.checkpoint and start.checkpoint.step, flush=True)
    except RunError as error:
        print(name, error.message, flush=True)
print([anywhere(value) for value in (rank == 1, False)], flush=True)
"""


def saved(folder: Path, step: int) -> Path:
    place = Checkpoints(folder).folder(step)
    place.mkdir(parents=True)
    (place / "weights").write_bytes(b"weights")
    mark_complete(place, Marker(step=step))
    return place


@pytest.mark.slow(10)
def test_every_process_begins_as_the_first_one_says(tmp_path: Path) -> None:
    """The second one sees less of the volume: it neither goes on from an older checkpoint, nor trains again."""
    first, second = tmp_path / "first", tmp_path / "second"
    saved(second / "lagging", 4)
    newest = saved(first / "lagging", 8)
    trained = RunFolder(first / "trained")
    trained.final.mkdir(parents=True)
    trained.training_metrics.path.touch()
    place = f"tcp://127.0.0.1:{free_port()}"
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo"}
    with (
        running(
            [sys.executable, "-c", PROCESS, "0", first, place], env=environment, stdout=subprocess.PIPE, text=True
        ) as a,
        running(
            [sys.executable, "-c", PROCESS, "1", second, place], env=environment, stdout=subprocess.PIPE, text=True
        ) as b,
    ):
        assert [a.stdout.readline() for _ in range(3)] == [
            "trained True None\n",
            "other False None\n",
            "lagging False 8\n",
        ]
        assert b.stdout.readline() == "trained True None\n"
        assert "precision: bf16 in process 0, fp16 here" in b.stdout.readline()
        shutil.copytree(newest, second / "lagging" / newest.name)
        assert b.stdout.readline() == "lagging False 8\n"
        assert {process.stdout.readline() for process in (a, b)} == {"[True, False]\n"}


HANGING = """
import sys, torch.distributed as dist
from dporun_trainer.training.agreement import allow, leave, largest
rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method=sys.argv[2], rank=rank, world_size=2)
print(largest(rank, device="cpu"), flush=True)
allow(0.5)
if rank == 1:
    sys.stdin.readline()
try:
    largest(rank, device="cpu")
except Exception as error:
    print(error, flush=True)
leave()
print(dist.is_initialized(), flush=True)
"""


@pytest.mark.slow(10)
def test_a_process_that_hangs_does_not_keep_the_others() -> None:
    """As long as it is allowed to, and that changes as the attempt goes on."""
    place = f"tcp://127.0.0.1:{free_port()}"
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo"}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment}
    with (
        running([sys.executable, "-c", HANGING, "0", place], **pipes) as waiting,
        running([sys.executable, "-c", HANGING, "1", place], **pipes) as hanging,
    ):
        assert waiting.stdout.readline() == "[1.0]\n", "what they have in common is the largest"
        said = waiting.stdout.readline()
        assert tells_of_lost_contact(said), said
        assert waiting.stdout.readline() == "False\n"
        hanging.stdin.close()


def test_a_checkpoint_that_is_never_seen_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dporun_trainer.training import agreement

    monkeypatch.setattr(agreement, "from_first", lambda _: (False, "checkpoint-8", {}))
    saved(tmp_path, 4)
    with pytest.raises(RunError, match=r"process 1 does not see .*/checkpoint-8, from which process 0 goes on"):
        agreement.agree_on_start(RunFolder(tmp_path), 1, lambda: None, {}, seconds=0)
