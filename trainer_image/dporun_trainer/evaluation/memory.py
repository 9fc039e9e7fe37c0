"""What fits into a device's memory at a time, and how work ends that did not fit."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer import gpu_errors

Item = TypeVar("Item")
Result = TypeVar("Result")


def attempt(work: Callable[[Sequence[Item]], Sequence[Result]], batch: Sequence[Item]) -> Sequence[Result] | None:
    """Results of ``work``, or None when the GPU ran out of memory; then nothing of the attempt is kept alive."""
    try:
        return work(batch)
    except Exception as error:
        if not out_of_memory(error):
            raise
    torch.cuda.empty_cache()
    return None


def out_of_memory(error: Exception) -> bool:
    """Whether an error of whatever class says that the GPU ran out of memory."""
    found = gpu_errors.in_error(error)
    return found is not None and found.reason is Reason.GPU_OUT_OF_MEMORY
