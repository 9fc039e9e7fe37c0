"""Memory of a training step as torch counts it: every tensor that it makes, from its allocation until it is freed."""

import contextlib
import weakref
from typing import Any

import torch
from peft import get_peft_model
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoModelForCausalLM


class Counter(TorchDispatchMode):
    """Counts the bytes of the tensors that live, those of ``known`` ones apart."""

    def __init__(self, known: list[torch.Tensor]):
        super().__init__()
        self._seen = weakref.WeakSet(tensor.untyped_storage() for tensor in known)
        self._live = 0
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Do what is asked, and count what it makes."""
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor) and (storage := tensor.untyped_storage()) not in self._seen:
                self._seen.add(storage)
                size = storage.nbytes()
                self._live += size
                self.peak = max(self.peak, self._live)
                weakref.finalize(storage, self._free, size)
        return made

    def _free(self, size: int) -> None:
        self._live -= size


def count_step(
    config: Any, lora: Any, *, sequences: int, length: int, dtype: torch.dtype, checkpointing: bool, fake: bool
) -> int:
    """Most bytes that a forward and backward pass adds to the weights, without the output head.

    Args:
        config: of the model.
        lora: PEFT's.
        sequences: of the batch; one is padded.
        length: of each, in tokens.
        dtype: of weights and activations.
        checkpointing: whether activations are recomputed.
        fake: whether shapes alone are computed, of a model of any size; the numbers are the same.

    """
    with torch.device("meta" if fake else "cpu"):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
        model = get_peft_model(model, lora, autocast_adapter_dtype=False, low_cpu_mem_usage=fake)
    with FakeTensorMode() if fake else contextlib.nullcontext():
        if fake:
            _move(model, dtype)
        model.train()
        if checkpointing:
            model.enable_input_require_grads()
            model.activation_checkpointing_enable({"use_reentrant": False})
        mask = torch.ones(sequences, 1, length, length, dtype=torch.bool).tril()
        mask[0, :, :, -1] = False
        with Counter([*model.parameters(), *model.buffers()]) as counter:
            tokens = torch.zeros(sequences, length, dtype=torch.long)
            hidden = model.base_model.model.model(input_ids=tokens, attention_mask=mask).last_hidden_state
            hidden.mean().backward()
        return counter.peak


def _move(model: Any, dtype: torch.dtype) -> None:
    """Give the structure fake weights on the CPU; Module.to cannot, from the meta device."""
    for module in model.modules():
        for name, weight in list(module._parameters.items()):
            if weight is not None:
                fake = torch.empty(weight.shape, dtype=dtype)
                module._parameters[name] = torch.nn.Parameter(fake, requires_grad=weight.requires_grad)
        for name, buffer in list(module._buffers.items()):
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)
