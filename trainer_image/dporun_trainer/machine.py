"""What a process computes on, as plain facts; device.py finds them out. No torch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Machine:
    """A device and what it can do.

    Attributes:
        cuda: whether it is a CUDA device; else the CPU.
        bf16: whether it computes in bfloat16.
        memory: bytes that one process can use.
        name: of the device, for people.

    """

    cuda: bool
    bf16: bool
    memory: int
    name: str

    @property
    def device(self) -> str:
        """Its name in torch."""
        return "cuda" if self.cuda else "cpu"
