"""Which layers get an adapter, which cannot, and what a user reads about that."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dporun_api.run_config import Lora
from dporun_testing.families import HIDDEN, LAYERS, tiny_config
from dporun_trainer.errors import RunError
from dporun_trainer.inputs.adapter_trial import Trial, try_adapter
from dporun_trainer.inputs.model import check_model, say_dropout


def empty(model_type: str, **changes: Any) -> Callable[[], Any]:
    """Make a function that builds a tiny model without weights."""
    import torch
    from transformers import AutoModelForCausalLM

    def build() -> Any:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(tiny_config(model_type, **changes))

    return build


def refusal(model_type: str, lora: Lora) -> tuple[str, str | None]:
    with pytest.raises(RunError) as raised:
        try_adapter(empty(model_type), lora)
    return raised.value.message, raised.value.hint


def test_every_linear_layer_but_the_head() -> None:
    attention, block = 2 * (64 + 64) + 2 * (64 + 32), 3 * (64 + 128)
    assert (HIDDEN, LAYERS) == (64, 2)
    assert try_adapter(empty("llama"), Lora(rank=4)) == Trial(2 * 7, 2 * 4 * (attention + block), takes_dropout=True)


def test_named_layers() -> None:
    assert try_adapter(empty("llama"), Lora(target_modules=("q_proj", "v_proj"))).modules == 2 * 2


def test_names_that_are_no_layers() -> None:
    linear = "down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj"
    assert refusal("llama", Lora(target_modules=("q_proj", "c_attn"))) == (
        "lora.targetModules: the model has no layer named 'c_attn'",
        f"Its linear layers are {linear}; all-linear takes all of them.",
    )
    assert refusal("llama", Lora(target_modules=("lm_head",)))[0].startswith("lora.targetModules: 'lm_head' is the out")


@pytest.mark.parametrize("model_type", ["mixtral", "qwen3_moe", "deepseek_v3", "olmoe", "glm4_moe", "qwen3_next"])
@pytest.mark.filterwarnings("error")
def test_experts_take_no_dropout(model_type: str) -> None:
    """Left out, it is 0 there; asked for, it is refused, and the layers that take it are named."""
    assert not try_adapter(empty(model_type), Lora()).takes_dropout
    assert not try_adapter(empty(model_type), Lora(dropout=0)).takes_dropout
    message, hint = refusal(model_type, Lora(dropout=0.1))
    assert message.startswith("lora.dropout is 0.1, but the adapter is on the experts of ")
    names = str(hint).removeprefix("Set lora.dropout: 0, or name layers other than experts in lora.targetModules: [")
    others = Lora(dropout=0.1, target_modules=tuple(names.removesuffix("].").split(", ")))
    assert try_adapter(empty(model_type), others).takes_dropout


def test_experts_by_the_names_of_their_layers() -> None:
    """As recipes of earlier versions of transformers name them, which kept each expert apart."""
    named = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    trial = try_adapter(empty("qwen3_moe"), Lora(target_modules=named))
    assert (trial.modules, trial.takes_dropout) == (2 * (4 + 2), False), "gate and up are one parameter"
    message, _ = refusal("qwen3_moe", Lora(target_modules=("gate_proj",)))
    assert "Cannot convert PEFT target(s) gate_proj without also targeting up_proj" in message
    message, _ = refusal("qwen3_moe", Lora(target_modules=(*named, "c_attn")))
    assert message == "lora.targetModules: the model has no layer named 'c_attn'"


def test_what_is_said_of_a_dropout_left_out(tiny_model: Path) -> None:
    facts = check_model(tiny_model, Lora())
    experts = facts.model_copy(update={"takes_dropout": False, "architecture": "MixtralForCausalLM"})
    assert say_dropout(experts, Lora()) == [
        "lora.dropout is 0: the adapter is on the experts of MixtralForCausalLM as well, which take none"
    ]
    assert say_dropout(experts, Lora(dropout=0)) == say_dropout(facts, Lora()) == []


@pytest.mark.parametrize(
    ("model_type", "refused", "fitting"),
    [
        ("mamba", "out_proj of MambaForCausalLM", "[dt_proj, in_proj, x_proj]"),
        ("mamba2", "out_proj of Mamba2ForCausalLM", "[in_proj]"),
        (
            "falcon_h1",
            "out_proj of FalconH1ForCausalLM",
            "[down_proj, gate_proj, in_proj, k_proj, o_proj, q_proj, up_proj, v_proj]",
        ),
    ],
)
def test_layers_that_peft_refuses(model_type: str, refused: str, fitting: str) -> None:
    """all-linear takes them too: the others are named, and work."""
    assert refusal(model_type, Lora()) == (
        f"PEFT puts no adapter on {refused}, which all-linear takes too",
        f"Name layers in lora.targetModules: {fitting}.",
    )
    assert try_adapter(empty(model_type), Lora(target_modules=tuple(fitting[1:-1].split(", ")))).modules >= LAYERS


def test_a_router_that_gives_more_than_logits() -> None:
    message, hint = refusal("phimoe", Lora())
    assert message == "router of PhimoeForCausalLM does more than multiply with its weights, which PEFT takes it to do"
    assert hint == "Name layers in lora.targetModules: [k_proj, o_proj, q_proj, v_proj]."
