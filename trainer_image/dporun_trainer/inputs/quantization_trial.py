"""A trial of 4-bit weights on the empty model: which weights get four bits, and whether that is worth it."""

from collections.abc import Callable
from typing import Any

from dporun_api.run_config import Lora, Quantization
from dporun_trainer.inputs.adapter_trial import put_adapter
from dporun_trainer.inputs.weights import unfit
from dporun_trainer.quantization import quantize_empty, quantized_layers

_READ_WEIGHTS = {"dots3_note", "dots3_note_text", "gemma3n", "gemma3n_text", "mamba", "rwkv"}
"""Types whose code multiplies with the weights of a linear layer, scales them or casts to their type; only trying them
told them from the others (tests/dporun_testing/model_table.py)."""
_HINT = "Leave model.quantization out, or use a model whose weights are in linear layers, such as Llama or Qwen."


def try_quantization(build: Callable[[], Any], quantization: Quantization | None, lora: Lora) -> int:
    """Quantize an empty model, and put the adapter on it.

    Args:
        build: makes the model, on the meta device; it is changed.
        quantization: of the run.
        lora: the adapter, which fits the model as it is.

    Returns:
        How many weights get four bits.

    Raises:
        RunError: they are too few for that to be of use, or the adapter does not fit them.

    """
    if quantization is None:
        return 0
    model = build()
    name, quantized = type(model).__name__, quantize_empty(model)
    inside = sum(weight.numel() for weight in model.parameters()) - _of_vocabulary(model)
    if 2 * quantized < inside:
        raise unfit(
            f"model.quantization is {quantization}, which is of linear layers, and only {quantized:,} of the "
            f"{inside:,} weights of {name}, its vocabulary apart, are in linear layers"
            + (": its experts are not" if _has_experts(model) else ""),
            _HINT,
        )
    if model.config.get_text_config().model_type in _READ_WEIGHTS:
        raise unfit(
            f"model.quantization is {quantization}, but {name} reads the weights of a linear layer where it should "
            "only call it: packed into 4 bits, they are other numbers",
            _HINT,
        )
    try:
        put_adapter(model, lora)
    except ValueError as error:
        raise unfit(f"the adapter does not fit the layers of 4 bits of {name}: {error}", _HINT) from error
    return quantized


def _of_vocabulary(model: Any) -> int:
    """Weights of embeddings and output head, shared ones once."""
    from torch.nn import Embedding  # noqa: PLC0415  heavy

    tables = [module for module in model.modules() if isinstance(module, Embedding)]
    return sum({id(part.weight): part.weight.numel() for part in (*tables, model.get_output_embeddings())}.values())


def _has_experts(model: Any) -> bool:
    layers = quantized_layers(model)
    return any(weight.dim() == 3 for name, weight in model.named_parameters() if name.rpartition(".")[0] not in layers)
