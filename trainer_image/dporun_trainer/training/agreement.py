"""What all processes of an attempt do alike: the first one decides, the others do the same or fail in words.

Each sees the run's folder through a cache of its own where the volume is shared among nodes, so none of them may
decide by what it sees there.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist

from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer.errors import RunError
from dporun_trainer.run_folder import RunFolder
from dporun_trainer.run_folder.checkpoints import Checkpoint, differences

Value = TypeVar("Value")

SEEN_WITHIN_SECONDS = 180.0
"""How long a checkpoint may take to be seen by every process; NFS keeps what it knows of a folder for up to 60."""
_LOOK_SECONDS = 1.0


@dataclass(frozen=True)
class Start:
    """How an attempt begins.

    Attributes:
        trained: whether an earlier attempt has finished training, so that there is nothing to do.
        checkpoint: to go on from; None to begin at the beginning.

    """

    trained: bool
    checkpoint: Checkpoint | None


LOADING_SECONDS = 4 * 3600
"""How long one process may keep the others waiting while data are tokenized, and references are computed. Before that,
while they find each other, it is transformers' half hour."""
TRAINING_SECONDS = 900
"""How long it may do so from then on: to write a checkpoint to a slow volume, to answer some prompts. One that hangs
costs that much of all GPUs."""


def allow(seconds: float) -> None:
    """Let what the processes do together take at most so long from now on."""
    if dist.is_initialized():
        dist.set_timeout(timedelta(seconds=seconds))


def leave() -> None:
    """Take leave of the others, when all are done: NCCL takes an end without it for a failure."""
    if dist.is_initialized():
        dist.destroy_process_group()


def from_first(value: Value) -> Value:
    """Return the ``value`` of the first process. Collective."""
    if not dist.is_initialized():
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]


def anywhere(value: bool) -> bool:
    """Whether it is so in any process. Collective."""
    if not dist.is_initialized():
        return value
    found = [False] * dist.get_world_size()
    dist.all_gather_object(found, value)
    return any(found)


def to_first(rows: list[Value]) -> list[Value] | None:
    """Return the rows of all processes to the first one, and None to the others. Collective."""
    if not dist.is_initialized():
        return rows
    gathered: list[list[Value]] | None = [[]] * dist.get_world_size() if dist.get_rank() == 0 else None
    dist.gather_object(rows, gathered, dst=0)
    return None if gathered is None else [row for part in gathered for row in part]


def largest(*values: float, device: torch.device) -> list[float]:
    """Return the largest of each of the ``values`` among all processes. Collective."""
    found = torch.tensor(values, dtype=torch.float64, device=device)
    if dist.is_initialized():
        dist.all_reduce(found, op=dist.ReduceOp.MAX)
    return [float(value) for value in found.tolist()]


def agree_on_start(
    folder: RunFolder,
    rank: int,
    choose: Callable[[], Checkpoint | None],
    common: Mapping[str, object],
    seconds: float = SEEN_WITHIN_SECONDS,
) -> Start:
    """Begin as the first process says. Collective.

    Args:
        folder: of the run, as this process sees it.
        rank: of this process.
        choose: finds the checkpoint to go on from; only the first process is asked.
        common: what every process must have in common with the first one, such as the number of steps.
        seconds: how long the checkpoint may take to be seen by this process.

    Raises:
        RunError: this process has other inputs or another device than the first one, or does not see the checkpoint.

    """
    trained, name = False, None
    if rank == 0:
        trained = folder.is_trained
        chosen = None if trained else choose()
        name = chosen.path.name if chosen else None
    trained, name, theirs = from_first((trained, name, dict(common)))
    if differing := differences(theirs, common, where=("in process 0", "here")):
        raise RunError(
            Reason.TRAINER_ERROR,
            f"training process {rank} would do something else than process 0: {'; '.join(differing)}",
            hint="All pods of a run need the same kind of GPU, and must mount the same volume.",
            rank=rank,
        )
    return Start(trained, None if name is None else _wait_for(folder, name, rank, seconds))


def _wait_for(folder: RunFolder, name: str, rank: int, seconds: float) -> Checkpoint:
    deadline = time.monotonic() + seconds
    while True:
        found = next((one for one in folder.checkpoints.complete() if one.path.name == name), None)
        if found is not None:
            return found
        if time.monotonic() >= deadline:
            raise RunError(
                Reason.TRAINER_ERROR,
                f"training process {rank} does not see {folder.path / name}, from which process 0 goes on, "
                f"after {seconds:.0f} s",
                hint="All pods of a run must mount the same volume; look whether its file server answers.",
                rank=rank,
            )
        time.sleep(_LOOK_SECONDS)
