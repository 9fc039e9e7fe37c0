"""What a process computes on, as plain facts; device.py finds them out. No torch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Machine:
    """A device and what it can do.

    Attributes:
        cuda: whether it is a CUDA device; else the CPU.
        bf16: whether it computes in bfloat16.
        memory: bytes that one process can use: of a GPU those that nobody else holds.
        name: of the device, for people.
        index: of this process's GPU among those of its pod.
        total: bytes of it in all, whoever holds them; as ``memory`` when 0.

    """

    cuda: bool
    bf16: bool
    memory: int
    name: str
    index: int = 0
    total: int = 0

    @property
    def capacity(self) -> int:
        """Bytes that one process can use when nobody else holds any."""
        return self.total or self.memory

    @property
    def device(self) -> str:
        """Its name in torch."""
        return f"cuda:{self.index}" if self.cuda else "cpu"

    @property
    def device_map(self) -> dict[str, str] | None:
        """Where ``from_pretrained`` puts a model: at once where it belongs.

        Through the host's memory, eight processes would hold eight copies there at the same time. On the CPU it is
        None: for PEFT, a map that names the CPU is one of a model that is partly elsewhere.
        """
        return {"": self.device} if self.cuda else None
