"""What fits into a device's memory at a time, and how work ends that did not fit."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from transformers import PreTrainedModel

from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer import gpu_errors

Item = TypeVar("Item")
Result = TypeVar("Result")

AT_ONCE_ON_GPU = 64
"""Most answers that are generated at a time: a GPU is not quicker with more, and a failure would lose more."""
AT_ONCE_ON_CPU = 16
_USABLE = 0.9


@dataclass(frozen=True)
class Widths:
    """The widths of a model that its need for memory follows from.

    Attributes:
        layers: of the decoder.
        kv_heads: heads of keys and values in a layer.
        head_dim: width of one of them.
        hidden: width between the layers.
        intermediate: width inside the feed-forward network.
        item: bytes of a number.

    """

    layers: int
    kv_heads: int
    head_dim: int
    hidden: int
    intermediate: int
    item: int

    @property
    def bytes_per_token(self) -> int:
        """Keys and values of all layers, and what the layer that is just computed needs besides.

        The latter is gone once the prompt is read, but while it is read, keys and values of all of it are there, too:
        four widths of the layer's input, and three of its feed-forward network.
        """
        kept = 2 * self.layers * self.kv_heads * self.head_dim
        return (kept + 4 * self.hidden + 3 * self.intermediate) * self.item


def widths(config: Any, item: int) -> Widths:
    """Read the widths from a text model's configuration; of what differs between the layers, the largest.

    Args:
        config: of transformers, with its standard names.
        item: bytes of a number.

    """
    heads = _largest(config, "num_attention_heads") or 1
    hidden = _largest(config, "hidden_size") or 1
    return Widths(
        layers=_largest(config, "num_hidden_layers") or 1,
        kv_heads=_largest(config, "num_key_value_heads") or heads,
        head_dim=_largest(config, "head_dim") or hidden // heads,
        hidden=hidden,
        intermediate=_largest(config, "intermediate_size") or 4 * hidden,
        item=item,
    )


def answers_that_fit(free: int, bytes_per_token: int, tokens: int) -> int:
    """How many answers a GPU can generate at a time: at least 1, at most AT_ONCE_ON_GPU.

    Args:
        free: bytes of memory that are free beside the models; a tenth of them is left alone.
        bytes_per_token: see ``Widths``.
        tokens: of the longest prompt and the longest answer together.

    """
    return max(1, min(AT_ONCE_ON_GPU, int(_USABLE * free) // (bytes_per_token * max(tokens, 1))))


def answers_at_once(model: PreTrainedModel, tokens: int) -> int:
    """How many answers to generate at a time on the device where ``model`` is; see ``answers_that_fit``."""
    if model.device.type != "cuda":
        return AT_ONCE_ON_CPU
    held = torch.cuda.memory_reserved(model.device) - torch.cuda.memory_allocated(model.device)
    free = torch.cuda.mem_get_info(model.device)[0] + held  # torch keeps memory that it has no use for just now
    needed = widths(model.config.get_text_config(), model.dtype.itemsize).bytes_per_token
    return answers_that_fit(free, needed, tokens)


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


def _largest(config: Any, name: str) -> int:
    """Value of a field, the largest where it has one for each layer; 0 where it has none."""
    value = getattr(config, name, None)
    numbers = [number for number in (value if isinstance(value, list | tuple) else [value]) if isinstance(number, int)]
    return max(numbers, default=0)
