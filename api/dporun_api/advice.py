"""What to do about a failure, in terms of the run's own settings."""

from typing import NamedTuple

from dporun_api.memory import MemoryEstimate, gibibytes
from dporun_api.run_config import Dpo, Quantization, Training
from dporun_api.text import capitalise, sentence
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


def larger_gpu(quantization: Quantization | None, *before: str) -> str:
    """Say what helps in the end, after what may be tried before. A lower lora.rank does not: an adapter is small."""
    fewer_bits = [] if quantization else ["set model.quantization: nf4 (4 bits for each weight)"]
    options = [*before, *fewer_bits, "take a GPU with more memory (resources.nodeSelector)"]
    return ", or ".join(filter(None, (", ".join(options[:-1]), options[-1])))


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
    quantization: Quantization | None,
    processes: int,
    checkpointing: bool,
    memory: MemoryEstimate | None = None,
    available: int | None = None,
) -> str:
    """Say what to change after a GPU ran out of memory.

    Args:
        training: with the batch that was too large.
        dpo: its maxLength is what a longest pair costs.
        quantization: of the weights.
        processes: training processes in all.
        checkpointing: whether activations are recomputed already.
        memory: estimated need, where it is known.
        available: bytes of the GPU, where they are known.

    """
    if memory is not None and available is not None and (why := never_fits(memory, available)):
        return f"{sentence(capitalise(larger_gpu(quantization)))} {capitalise(why)}."
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
    shorter = f"lower dpo.maxLength ({dpo.max_length})"
    return f"The batch size is 1 already: {larger_gpu(quantization, shorter)}."


def hint(
    reason: Reason, training: Training, dpo: Dpo, *, quantization: Quantization | None, processes: int
) -> str | None:
    """What to do about a failure whose trainer said nothing; None where there is nothing to say."""
    if reason is Reason.GPU_OUT_OF_MEMORY:
        checkpointing = training.gradient_checkpointing == "always"
        return after_gpu_out_of_memory(
            training, dpo, quantization=quantization, processes=processes, checkpointing=checkpointing
        )
    return reason.traits.hint
