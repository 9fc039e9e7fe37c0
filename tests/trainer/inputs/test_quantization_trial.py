"""Which models gain by weights of 4 bits, and which are refused before a GPU is held."""

from collections.abc import Callable
from typing import Any

import pytest

from dporun_api.run_config import Lora
from dporun_api.v1alpha1.reasons import Reason
from dporun_testing.families import tiny_config
from dporun_trainer.errors import RunError
from dporun_trainer.inputs.quantization_trial import try_quantization


def empty(model_type: str, **changes: Any) -> Callable[[], Any]:
    """Make a function that builds a tiny model without weights."""
    import torch
    from transformers import AutoModelForCausalLM

    def build() -> Any:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(tiny_config(model_type, **changes))

    return build


def refusal(model_type: str, lora: Lora) -> str:
    with pytest.raises(RunError) as raised:
        try_quantization(empty(model_type), "nf4", lora)
    assert raised.value.reason is Reason.MODEL_INVALID
    assert raised.value.hint is not None
    assert "model.quantization" in raised.value.hint
    return raised.value.message


def test_the_linear_layers_are_quantized_but_the_head() -> None:
    attention, block = 2 * 64 * 64 + 2 * 64 * 32, 3 * 64 * 128
    assert try_quantization(empty("llama"), "nf4", Lora()) == 2 * (attention + block)
    assert try_quantization(empty("llama"), None, Lora()) == 0


@pytest.mark.parametrize("model_type", ["gpt2", "gemma2", "phi3", "qwen3"])
def test_tied_heads_and_transposed_layers(model_type: str) -> None:
    assert try_quantization(empty(model_type), "nf4", Lora()) > 30_000


@pytest.mark.parametrize("model_type", ["mixtral", "qwen3_moe", "gpt_oss"])
def test_experts_are_no_linear_layers(model_type: str) -> None:
    message = refusal(model_type, Lora())
    assert "model.quantization is nf4, which is of linear layers, and only 24,576 of the " in message
    assert message.endswith(" its vocabulary apart, are in linear layers: its experts are not")


def test_layers_with_a_forward_of_their_own() -> None:
    assert "and only 0 of the 53,632 weights of FalconForCausalLM" in refusal("falcon", Lora())


@pytest.mark.parametrize(("model_type", "layers"), [("mamba", ("in_proj", "x_proj")), ("gemma3n_text", ("q_proj",))])
def test_models_that_read_the_weights_of_a_layer(model_type: str, layers: tuple[str, ...]) -> None:
    """They would fail at their first forward pass."""
    assert "reads the weights of a linear layer where it should only call it" in refusal(
        model_type, Lora(target_modules=layers)
    )
