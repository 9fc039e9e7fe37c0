"""Weights of four bits: how a model is loaded with them, and which of them have so few. One answer for all rooms.

NF4 with double quantization, after Dettmers et al. 2023, QLoRA (https://arxiv.org/abs/2305.14314), by bitsandbytes: a
linear layer keeps 4.13 bits for each weight and computes in 16 bits. Embedding, output head, norms and whatever is no
linear layer stay as they are.
"""

from typing import Any

from dporun_api.run_config import Quantization


def loading_arguments(quantization: Quantization | None, dtype: Any) -> dict[str, Any]:
    """Arguments of ``from_pretrained`` that quantize a model while it is loaded, layer by layer, on its device.

    Args:
        quantization: of the run; without one there are none.
        dtype: in which the layers compute, in torch's words.

    """
    if quantization is None:
        return {}
    import torch  # noqa: PLC0415  heavy
    from transformers import BitsAndBytesConfig  # noqa: PLC0415

    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=quantization,
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        bnb_4bit_quant_storage=torch.uint8,
    )
    return {"quantization_config": config}


def quantized_layers(model: Any) -> dict[str, Any]:
    """The layers whose weights have four bits, by their names."""
    from bitsandbytes.nn.modules import Linear4bit  # noqa: PLC0415  heavy

    return {name: module for name, module in model.named_modules() if isinstance(module, Linear4bit)}


def settle(model: Any) -> None:
    """Keep the layers of a loaded model in the one layout that training can compute in, and out of checkpoints.

    On a CPU with AVX512-BF16, bitsandbytes 0.50 repacks a layer at its first forward pass in eval mode, for a kernel
    that rounds to bf16 and knows no gradient: after a validation, adapters below another layer would learn nothing.

    DeepSpeed leaves frozen parameters out of a checkpoint, but not what bitsandbytes adds to the state of a layer, such
    as the scale of each 64 weights: another gigabyte for 70 billion of them.
    """
    for layer in quantized_layers(model).values():
        layer.support_avx512bf16_for_cpu = False
        layer.register_state_dict_post_hook(_leave_out_scales)


def _leave_out_scales(_: Any, state: dict[str, Any], prefix: str, _metadata: Any) -> None:
    for name in [name for name in state if name.startswith(f"{prefix}weight.")]:
        del state[name]


def quantize_empty(model: Any) -> int:
    """Exchange the layers of a model on the meta device for those of four bits, as loading would.

    Returns:
        How many weights these layers have.

    """
    from transformers.quantizers import AutoHfQuantizer  # noqa: PLC0415  heavy

    quantizer = AutoHfQuantizer.from_config(**loading_arguments("nf4", "bfloat16"))
    quantizer.preprocess_model(model=model, device_map={"": "meta"})
    model.is_loaded_in_4bit = True
    return sum(layer.in_features * layer.out_features for layer in quantized_layers(model).values())
