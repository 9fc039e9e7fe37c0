"""What all processes of an attempt do alike: the first one decides, the others do the same or fail in words.

Each sees the run's folder through a cache of its own where the volume is shared among nodes, so none of them may
decide by what it sees there.
"""

import time
from dataclasses import dataclass
from typing import TypeVar

import torch.distributed as dist

from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer.errors import RunError
from dporun_trainer.run_folder.checkpoints import Checkpoint, Checkpoints, differences

Value = TypeVar("Value")

SEEN_WITHIN_SECONDS = 180.0
"""How long a checkpoint may take to be seen by every process; NFS keeps what it knows of a folder for up to 60."""
_LOOK_SECONDS = 1.0


@dataclass(frozen=True)
class Start:
    """How an attempt begins.

    Attributes:
        trained: whether an earlier attempt has finished training.
        checkpoint: name of the checkpoint to go on from; None to begin at the beginning.
        common: what every process must have in common with the first one.

    """

    trained: bool
    checkpoint: str | None
    common: dict[str, object]


def from_first(value: Value) -> Value:
    """Return the ``value`` of the first process. Collective."""
    if not dist.is_initialized():
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]


def require_same(start: Start, common: dict[str, object], rank: int) -> None:
    """Make sure that this process would do what the first one does.

    Raises:
        RunError: it has other inputs, or another device.

    """
    differing = differences(start.common, common, where=("in process 0", "here"))
    if differing:
        raise RunError(
            Reason.TRAINER_ERROR,
            f"training process {rank} would do something else than process 0: {'; '.join(differing)}",
            hint="All pods of a run need the same kind of GPU, and must mount the same volume.",
            rank=rank,
        )


def wait_for(checkpoints: Checkpoints, name: str, rank: int, seconds: float = SEEN_WITHIN_SECONDS) -> Checkpoint:
    """Find the complete checkpoint that the first process chose, once this process sees it.

    Raises:
        RunError: it was not seen within so many seconds.

    """
    deadline = time.monotonic() + seconds
    while True:
        found = next((one for one in checkpoints.complete() if one.path.name == name), None)
        if found is not None:
            return found
        if time.monotonic() >= deadline:
            raise RunError(
                Reason.TRAINER_ERROR,
                f"training process {rank} does not see {checkpoints.directory / name}, from which process 0 goes on, "
                f"after {seconds:.0f} s",
                hint="All pods of a run must mount the same volume; look whether its file server answers.",
                rank=rank,
            )
        time.sleep(_LOOK_SECONDS)
