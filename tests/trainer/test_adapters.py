"""Whether an adapter fits a run: one answer for prepare and for training."""

import re
from typing import Any

import pytest

from dporun_api.run_config import Lora
from dporun_trainer.adapters import lora_arguments, require_same_layers, require_same_shape, used_targets
from dporun_trainer.errors import RunError

LORA = Lora(rank=8, alpha=16, target_modules=("q_proj", "v_proj"))
FITTING = {"r": 8, "lora_alpha": 16, "target_modules": ["v_proj", "q_proj"]}


def test_all_linear_is_a_word_of_peft_and_layers_are_a_list() -> None:
    assert lora_arguments(Lora(), dropout=0.05)["target_modules"] == "all-linear"
    assert lora_arguments(LORA, dropout=0.1) == {
        "r": 8,
        "lora_alpha": 16,
        "lora_dropout": 0.1,
        "target_modules": ["q_proj", "v_proj"],
        "task_type": "CAUSAL_LM",
    }


def test_an_adapter_stays_in_its_part_of_the_model() -> None:
    outside = lora_arguments(Lora(), "model.text", dropout=0)["exclude_modules"]
    assert not re.fullmatch(outside, "model.text.layers.0.q_proj")
    assert all(re.fullmatch(outside, name) for name in ("model.vision.q_proj", "model.text_head", "model.text", "text"))


def test_targets_are_those_of_the_adapted_part() -> None:
    layers = ["model.text.layers.0.q_proj", "model.text.layers.0.mlp.up"]
    assert used_targets({"q_proj", "text.layers.0.mlp.up", "proj", "fc1", "vision.q_proj"}, layers) == {
        "q_proj",
        "text.layers.0.mlp.up",
    }


def test_an_adapter_of_the_same_shape_fits() -> None:
    require_same_shape(LORA, FITTING, "s3://b/run")
    require_same_shape(LORA.model_copy(update={"target_modules": ("all-linear",)}), FITTING, "s3://b/run")
    require_same_shape(LORA, FITTING | {"target_modules": ["q_proj"], "target_parameters": ["down_proj"]}, "s3://b/run")
    require_same_layers([], [], "s3://b/run")


@pytest.mark.parametrize(
    ("change", "message", "hint"),
    [
        ({"r": 4}, "lora.rank is 8, but the adapter in s3://b/run has 4", "Set lora.rank to 4"),
        ({"lora_alpha": 8}, "lora.alpha is 16, but the adapter in s3://b/run has 8", "Set lora.alpha to 8"),
        (
            {"target_modules": ["k_proj"]},
            "lora.targetModules is q_proj, v_proj, but the adapter in s3://b/run has k_proj",
            r"Set lora.targetModules to [k_proj].",
        ),
    ],
)
def test_an_adapter_of_another_shape_is_refused(change: dict[str, Any], message: str, hint: str) -> None:
    with pytest.raises(RunError) as raised:
        require_same_shape(LORA, FITTING | change, "s3://b/run")
    assert raised.value.message == message
    assert (raised.value.hint or "").startswith(hint)
    assert raised.value.exit_code == 64


@pytest.mark.parametrize(("missing", "unexpected"), [(["a"], []), ([], ["b"])])
def test_an_adapter_of_other_layers_is_refused(missing: list[str], unexpected: list[str]) -> None:
    with pytest.raises(RunError, match="the adapter in s3://b/run adapts other layers"):
        require_same_layers(missing, unexpected, "s3://b/run")
