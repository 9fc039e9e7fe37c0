"""Which class a checkpoint is loaded as, and what of it gets an adapter."""

import shutil
from pathlib import Path

import pytest

from dporun_api.run_config import Lora
from dporun_testing.multimodal import Family, save_tiny_multimodal
from dporun_trainer.adapters import lora_arguments
from dporun_trainer.architectures import auto_class, language_model, load_model
from dporun_trainer.errors import RunError
from dporun_trainer.inputs.model import check_model, say_modalities

CLASSES: dict[Family, tuple[str, tuple[str, ...]]] = {
    "gemma3": ("Gemma3ForConditionalGeneration", ("image",)),
    "qwen3_5": ("Qwen3_5ForConditionalGeneration", ("image", "video")),
    "qwen2_5_vl": ("Qwen2_5_VLForConditionalGeneration", ("image", "video")),
}


@pytest.mark.parametrize("family", CLASSES)
def test_a_multimodal_checkpoint_is_loaded_whole(family: Family, tmp_path: Path) -> None:
    """As the class that it is, with every weight of its file, and an adapter on its language model alone."""
    from peft import LoraConfig, get_peft_model
    from safetensors import safe_open

    name, modalities = CLASSES[family]
    folder = save_tiny_multimodal(tmp_path, family)
    facts = check_model(folder, Lora())
    assert (facts.architecture, facts.modalities) == (name, modalities)
    assert say_modalities(facts)[0].startswith(f"{name} reads {facts.reads} too: only its language model gets")

    model = load_model(str(folder))
    assert type(model).__name__ == name
    with safe_open(folder / "model.safetensors", "pt") as file:
        tower = {key: file.get_tensor(key) for key in file.keys() if "vis" in key}  # noqa: SIM118  no mapping
    held = {key.removeprefix("model."): weight for key, weight in model.state_dict().items()}
    assert len(tower) >= 10
    assert all(held[key.removeprefix("model.")].equal(weight) for key, weight in tower.items())

    adapted = get_peft_model(model, LoraConfig(**lora_arguments(Lora(), language_model(model), dropout=0.05)))
    trained = [key for key, weight in adapted.named_parameters() if weight.requires_grad]
    assert len(trained) == 2 * facts.lora_modules
    assert all(key.startswith("base_model.model.model.language_model.layers.") for key in trained)


def test_named_layers_of_the_tower_are_left_alone(tmp_path: Path) -> None:
    """The vision tower has layers of the same names."""
    folder = save_tiny_multimodal(tmp_path, "gemma3")
    assert check_model(folder, Lora(target_modules=("q_proj", "v_proj"))).lora_modules == 2 * 2
    with pytest.raises(RunError, match="has no layer named 'fc1'") as raised:
        check_model(folder, Lora(target_modules=("fc1",)))
    assert "fc2" not in str(raised.value.hint)


def test_a_checkpoint_of_text_alone_stays_one(tmp_path: Path) -> None:
    """Qwen3.5 is published with its vision tower; one that was saved as text is none that lost it."""
    import transformers

    folder = save_tiny_multimodal(tmp_path / "whole", "qwen3_5")
    transformers.AutoModelForCausalLM.from_pretrained(folder).save_pretrained(tmp_path / "text")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(folder / name, tmp_path / "text")
    facts = check_model(tmp_path / "text", Lora())
    assert (facts.architecture, facts.modalities) == ("Qwen3_5ForCausalLM", ())
    assert say_modalities(facts) == []


def test_a_model_that_keeps_nothing_apart_is_refused() -> None:
    import torch
    import transformers

    with torch.device("meta"):
        model = auto_class(transformers.GitConfig()).from_config(transformers.GitConfig())
    with pytest.raises(RunError, match="GitForCausalLM does not keep its language model apart"):
        language_model(model)
