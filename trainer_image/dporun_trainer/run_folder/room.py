"""Room for checkpoints on a run's volume: how large they are, what may go to make room, and what to say without it."""

import math

from dporun_trainer import disk
from dporun_trainer.disk import size
from dporun_trainer.run_folder.checkpoints import Checkpoints

AT_A_TIME = 3
"""Checkpoints on the volume at the most: the best, the newest, and the one that is being written."""

_BYTES_PER_WEIGHT = 16
"""What a trainable weight takes in a checkpoint, at the least: 2 bytes in the adapter and 2 in DeepSpeed's copy of it
(4 each in fp32), and 12 for the fp32 copy and the two moments of Adam, over all processes (ZeRO,
https://arxiv.org/abs/1910.02054, section 3.1)."""


def estimate(trainable: int) -> int:
    """Bytes of a checkpoint of ``trainable`` weights, at the least."""
    return _BYTES_PER_WEIGHT * trainable


def run_bytes(trainable: int, base: int, epochs: float) -> int:
    """Bytes that a run writes beside its inputs, at the least.

    Its checkpoints while it trains; then the best of them, the adapter, and the merged model, as large as the base.
    """
    checkpoint = estimate(trainable)
    return max(min(AT_A_TIME, math.ceil(epochs)) * checkpoint, checkpoint + 2 * trainable + base)


def next_bytes(checkpoints: Checkpoints, trainable: int) -> int:
    """Bytes that the next checkpoint will have: a little more than the newest, as its log grows; else an estimate."""
    newest = checkpoints.newest()
    return estimate(trainable) if newest is None else newest.bytes * 17 // 16


def make_room(checkpoints: Checkpoints, needed: int) -> int:
    """See to it that ``needed`` bytes are free, as far as that takes nothing that the run may need.

    Torn checkpoints go first, then those that a newer one has made needless, at last those of them that are still being
    uploaded; never the best or the newest.

    Returns:
        The bytes that are free then.

    """
    folder = checkpoints.directory
    if disk.free(folder) < needed:
        checkpoints.discard_torn()
    if disk.free(folder) < needed:
        checkpoints.prune(running=True)
    if disk.free(folder) < needed:
        checkpoints.discard_copies()
    return disk.free(folder)


def lacking(what: str, needed: int, free: int) -> str:
    """Say that ``what``, of ``needed`` bytes, does not fit into ``free`` ones."""
    return f"{what} needs {size(needed)}, and the volume has {size(free)} free"


def hint(checkpoint: int) -> str:
    """What to do when there is no room for a checkpoint of so many bytes."""
    return (
        f"Set a larger spec.storage.size: up to {AT_A_TIME} checkpoints of {size(checkpoint)} are there at a time. "
        "Those saved so far are complete and kept."
    )
