"""Work on a batch of items that needs no model: in a module that another process can import."""

import os
from collections.abc import Sequence
from typing import Any

import torch


def pids(_: Any, batch: Sequence[int]) -> list[int]:
    """Tell which process worked on each item."""
    return [os.getpid()] * len(batch)


def two_at_a_time(_: Any, batch: Sequence[int]) -> list[int]:
    """Return the items themselves, with memory for two of them."""
    if len(batch) > 2:
        raise torch.AcceleratorError("CUDA error: out of memory", 2)
    return list(batch)


def broken_gpu(_: Any, batch: Sequence[int]) -> list[int]:
    """Fail as a GPU does that is broken."""
    raise torch.AcceleratorError(f"CUDA error: uncorrectable ECC error encountered in {batch}", 214)
