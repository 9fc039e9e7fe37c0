"""How much memory training needs: an estimate, as the parts tell it each other, and when it fits.

``dporun_trainer.memory`` has the formulas.
"""

from pydantic import Field

from dporun_api.document import Document

GIB = 2**30

HEADROOM = 0.9
"""Share of a device's memory that an estimate may fill; it is an estimate."""


class MemoryEstimate(Document):
    """Memory that training needs, in bytes. What a process needs is on its GPU, or in the pod's memory without one."""

    weights: int = Field(ge=0)
    """The base model, once in every process."""
    adapter: int = Field(ge=0)
    """The adapter, its gradients and its optimizer's state in one process."""
    activations: int = Field(ge=0)
    """What the forward pass of one process keeps for the backward pass, at the longest batch."""
    checkpointed_activations: int = Field(ge=0)
    """The same where activations are recomputed (gradient checkpointing)."""
    overhead: int = Field(ge=0)
    """CUDA's context, kernels, buffers of NCCL and fragmentation on one GPU; 0 without GPUs."""
    host: int = Field(ge=0)
    """Memory of one training pod outside its GPUs, evaluation and merge included."""

    @property
    def least(self) -> int:
        """Bytes of one process without which nothing can be trained, however short the batch."""
        return self.weights + self.adapter

    def process(self, *, checkpointing: bool) -> int:
        """Bytes that one process needs at its peak."""
        activations = self.checkpointed_activations if checkpointing else self.activations
        return self.least + activations + self.overhead

    def fits(self, memory: int, *, checkpointing: bool) -> bool:
        """Whether one process fits into ``memory`` bytes, as far as an estimate can tell."""
        return self.process(checkpointing=checkpointing) <= HEADROOM * memory

    @property
    def parts(self) -> str:
        """What it is made of, for people."""
        overhead = f", CUDA and buffers {gibibytes(self.overhead)}" if self.overhead else ""
        return (
            f"weights {gibibytes(self.weights)}, adapter with optimizer {gibibytes(self.adapter)}, activations "
            f"{gibibytes(self.activations)} or, with gradient checkpointing, "
            f"{gibibytes(self.checkpointed_activations)}{overhead}"
        )


def gibibytes(count: float) -> str:
    """Write a number of bytes in GiB."""
    return f"{count / GIB:.1f} GiB"
