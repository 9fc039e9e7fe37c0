"""What TRL computes of each batch for the log, computed only when there is something to log.

TRL gathers fifteen numbers of every batch from all processes, one by one, and reads thirteen from the device. Each time
the processes meet, and the device runs out of work. Its code stays as it is: here it gets an accelerator whose
gathering returns numbers to come. When something is logged, one collective brings all of them.
"""

import operator
from collections.abc import Callable
from typing import Any

import torch


class Postponed:
    """A number to come, for TRL to calculate with as it does with the tensor that the accelerator would have returned.

    Attributes:
        value: what it is, once Postponing has settled it.

    """

    def __init__(self, postponing: "Postponing"):
        self.value: Any = None
        self._postponing = postponing

    def _then(self, compute: Callable[..., Any], *others: Any) -> "Postponed":
        return self._postponing.later(lambda: compute(self.value, *(now(other) for other in others)))

    def first(self, count: int) -> "Postponed":
        """Those of the first processes."""
        return self._then(lambda values: values[:count])

    def sum(self) -> "Postponed":
        """Over all processes."""
        return self._then(torch.sum)

    def mean(self) -> "Postponed":
        """Over all processes."""
        return self._then(torch.mean)

    def item(self) -> "Postponed":
        """The same as a plain number, without waiting for it."""
        return self._then(torch.Tensor.item)

    def __gt__(self, other: float) -> bool:
        """TRL divides by a number only if that is above 0; here it always divides, and by 0 gives 0, as TRL would."""
        return True

    def __truediv__(self, other: "Postponed") -> "Postponed":
        return self._then(lambda value, divisor: value / divisor if divisor > 0 else 0.0 * value, other)

    def __floordiv__(self, other: int) -> "Postponed":
        return self._then(operator.floordiv, other)

    def __add__(self, other: "Postponed | int") -> "Postponed":
        return self._then(operator.add, other)

    __radd__ = __add__


def now(value: Any) -> Any:
    """The value of a number that has been settled, or of one that was never postponed."""
    return value.value if isinstance(value, Postponed) else value


class Postponing:
    """The accelerator of a trainer while it computes a loss: it notes what to gather, and gathers all of it at once."""

    def __init__(self, accelerator: Any):
        self._accelerator = accelerator
        self._numbers: list[tuple[Postponed, Callable[[], Any]]] = []
        self._here: list[torch.Tensor] = []
        self._everywhere: list[torch.Tensor] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._accelerator, name)

    def later(self, compute: Callable[[], Any]) -> Postponed:
        """Make a number that is computed when all that were made before it have their values."""
        number = Postponed(self)
        self._numbers.append((number, compute))
        return number

    def gather(self, tensor: torch.Tensor) -> Postponed:
        """Note a number, or one for each row of a batch. Not collective."""
        index = len(self._here)
        self._here.append(tensor.detach())
        return self.later(lambda: self._everywhere[index])

    def gather_for_metrics(self, tensor: torch.Tensor) -> Postponed:
        """As ``gather``, without what only fills up the last batch, by accelerate's rule for it."""
        state = self._accelerator.gradient_state
        last = state.end_of_dataloader and state.remainder > 0
        gathered = self.gather(tensor)
        return gathered.first(state.remainder) if last else gathered

    def settle(self) -> None:
        """Give every number its value: one collective, one wait for the device. Collective."""
        if self._here:
            # float64 holds each of them exactly: they are float32, or counts.
            here = torch.cat([tensor.double().flatten() for tensor in self._here])
            everywhere = self._accelerator.gather(here).view(-1, len(here)).cpu()
            columns = everywhere.split([tensor.numel() for tensor in self._here], dim=1)
            self._everywhere = [
                column.flatten().to(tensor.dtype) for column, tensor in zip(columns, self._here, strict=True)
            ]
        for number, compute in self._numbers:
            number.value = compute()
        self._numbers, self._here, self._everywhere = [], [], []


class Selectable(torch.Tensor):
    """A tensor whose elements are selected by a mask without waiting to count them: the others become 0.

    For what is summed afterwards, that is the same.
    """

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Select by ``tensor[mask]``; everything else is torch's."""
        if func is torch.Tensor.__getitem__ and isinstance(args[1], torch.Tensor) and args[1].dtype is torch.bool:
            return args[0].as_subclass(torch.Tensor).masked_fill(~args[1], 0)
        return super().__torch_function__(func, types, args, kwargs or {})  # type: ignore[no-untyped-call]
