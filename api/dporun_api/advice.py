"""What to do about a failure, in terms of the run's own settings."""

from typing import NamedTuple

from dporun_api.memory import MemoryEstimate, gibibytes
from dporun_api.run_config import Dpo, Training
from dporun_api.text import capitalise
from dporun_api.v1alpha1.reasons import Reason


class Batch(NamedTuple):
    """How many preference pairs make an optimizer step of one process."""

    size: int
    """training.perDeviceBatchSize"""
    accumulation: int
    """training.gradientAccumulationSteps"""


def smaller_batch(training: Training) -> Batch | None:
    """Find a batch that needs less memory and keeps the effective batch; None when the batch size is 1 already.

    The largest proper divisor of the batch size, so that the effective batch stays exactly what it is.
    """
    batch = training.per_device_batch_size
    size = next((size for size in range(batch // 2, 0, -1) if batch % size == 0), None)
    return None if size is None else Batch(size, training.gradient_accumulation_steps * (batch // size))


LARGER_GPU = "take a GPU with more memory"
"""What helps in the end: the optimizer's state of an adapter is small, so a lower lora.rank does not."""


def never_fits(memory: MemoryEstimate, available: int) -> str | None:
    """Say that training can never fit into ``available`` bytes of a GPU, and why; None where it may."""
    if memory.least <= available:
        return None
    return (
        f"the weights alone take {gibibytes(memory.weights)} of memory and the adapter with its optimizer "
        f"{gibibytes(memory.adapter)}, where {gibibytes(available)} are there"
    )


def after_gpu_out_of_memory(
    training: Training,
    dpo: Dpo,
    *,
    processes: int,
    checkpointing: bool,
    memory: MemoryEstimate | None = None,
    available: int | None = None,
) -> str:
    """Say what to change after a GPU ran out of memory.

    Args:
        training: with the batch that was too large.
        dpo: its maxLength is what a longest pair costs.
        processes: training processes in all.
        checkpointing: whether activations are recomputed already.
        memory: estimated need, where it is known.
        available: bytes of the GPU, where they are known.

    """
    if memory is not None and available is not None and (why := never_fits(memory, available)):
        return f"{capitalise(LARGER_GPU)}: {why}."
    smaller = smaller_batch(training)
    if smaller is not None:
        return (
            f"Set training.perDeviceBatchSize: {smaller.size} and training.gradientAccumulationSteps: "
            f"{smaller.accumulation}; the effective batch stays {smaller.size * smaller.accumulation * processes}."
        )
    if not checkpointing:
        return (
            "The batch size is 1 already: set training.gradientCheckpointing: always, "
            f"or lower dpo.maxLength ({dpo.max_length})."
        )
    return f"The batch size is 1 already: lower dpo.maxLength ({dpo.max_length}), or {LARGER_GPU}."


def hint(reason: Reason, training: Training, dpo: Dpo, *, processes: int) -> str | None:
    """What to do about a failure whose trainer said nothing; None where there is nothing to say."""
    if reason is Reason.GPU_OUT_OF_MEMORY:
        checkpointing = training.gradient_checkpointing == "always"
        return after_gpu_out_of_memory(training, dpo, processes=processes, checkpointing=checkpointing)
    return reason.traits.hint
