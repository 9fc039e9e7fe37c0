"""Checkpoints whose tensors are not those of the model: refused wherever a model is loaded, in the same words."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dporun_api.run_config import Lora
from dporun_api.v1alpha1.reasons import Reason
from dporun_testing import families
from dporun_testing.models import edit_json, edit_weights
from dporun_trainer.errors import RunError
from dporun_trainer.evaluation.policy import load_model
from dporun_trainer.inputs.model import check_model
from dporun_trainer.training.build import load_base

Tensors = dict[str, Any]
HEAD, UP = "lm_head.weight", "model.layers.1.mlp.up_proj.weight"
FETCH = "Fetch the whole model again, or use the config.json that the weights were saved with."
ALL = "lack 21 tensors (lm_head.weight, model.embed_tokens.weight, model.layers.0.input_layernorm.weight, …)"
OTHER_CONFIG = "for which LlamaForCausalLM of config.json has no place"


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model that a test may change."""
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def prefixed(prefix: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {prefix + name: tensor for name, tensor in tensors.items()}


def compiled_layer(tensors: Tensors) -> Tensors:
    return {name.replace("layers.0.", "layers.0._orig_mod."): tensor for name, tensor in tensors.items()}


def unmerged(tensors: Tensors) -> Tensors:
    wrapped = {f"base_model.model.{name}": tensor for name, tensor in tensors.items()}
    return wrapped | {"base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight": torch.zeros(4, 32)}


def holed(tensors: Tensors) -> Tensors:
    """As many numbers as before."""
    return {name: tensor for name, tensor in tensors.items() if name != UP} | {"spare": torch.zeros(64, 32)}


def headless(tensors: Tensors) -> Tensors:
    return {name: tensor for name, tensor in tensors.items() if name != HEAD}


def biased(tensors: Tensors) -> Tensors:
    return tensors | {f"model.layers.{n}.self_attn.{part}_proj.bias": torch.zeros(32) for n in (0, 1) for part in "qo"}


def normed(tensors: Tensors) -> Tensors:
    return tensors | {"model.layers.0.self_attn.q_norm.weight": torch.zeros(8)}


def longer(tensors: Tensors) -> Tensors:
    more = {name.replace("layers.1.", "layers.2."): tensor for name, tensor in tensors.items() if "layers.1." in name}
    return tensors | more


def wider(tensors: Tensors) -> Tensors:
    return tensors | {UP: torch.zeros(96, 32)}


@pytest.mark.parametrize(
    ("change", "message", "hint"),
    [
        (prefixed("_orig_mod."), ALL, 'The names contain "_orig_mod.", which torch.compile leaves behind'),
        (prefixed("module."), ALL, 'The names contain "module.", which DistributedDataParallel or DeepSpeed leaves'),
        (prefixed("other."), ALL, FETCH),
        (compiled_layer, "lack 9 tensors (model.layers.0.", 'The names contain "_orig_mod."'),
        (unmerged, ALL, "They are wrapped by PEFT: merge the adapter with merge_and_unload()"),
        (holed, f"lack 1 tensor ({UP}) of LlamaForCausalLM: they would start at random", FETCH),
        (headless, f"lack 1 tensor ({HEAD})", 'set "tie_word_embeddings": true in config.json'),
        (biased, "have 4 tensors (model.layers.0.self_attn.o_proj.bias, ", "Use the config.json that the weights"),
        (normed, f"have 1 tensor (model.layers.0.self_attn.q_norm.weight), {OTHER_CONFIG}", "with save_pretrained"),
        (longer, "have 9 tensors (model.layers.2.input_layernorm.weight, ", "Use the config.json that the weights"),
        (wider, f"{UP} is 96 x 32 instead of 64 x 32", "Use the config.json that the weights were saved with."),
    ],
)
def test_refused(model: Path, change: Callable[[Tensors], Tensors], message: str, hint: str) -> None:
    edit_weights(model, change)
    with pytest.raises(RunError) as raised:
        check_model(model, Lora())
    assert message in raised.value.message
    assert hint in str(raised.value.hint)
    assert raised.value.reason is Reason.MODEL_INVALID


@pytest.mark.parametrize("load", [lambda path: load_model(path, "float32"), lambda path: load_base(str(path), "fp32")])
@pytest.mark.parametrize("change", [prefixed("_orig_mod."), holed, normed, wider])
def test_no_loader_trains_or_judges_another_model(
    model: Path, load: Callable[[Path], Any], change: Callable[[Tensors], Tensors]
) -> None:
    """Where prepare was passed by, or files changed since: in the words of prepare."""
    edit_weights(model, change)
    with pytest.raises(RunError) as prepared:
        check_model(model, Lora())
    with pytest.raises(RunError) as loaded:
        load(model)
    assert loaded.value.failure() == prepared.value.failure()


def with_spare(name: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: tensors | {name: torch.zeros(1, 32)}


def old_buffers(tensors: Tensors) -> Tensors:
    return tensors | {
        "model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(8),
        "model.layers.0.attn.bias": torch.zeros(1, 1, 8, 8),
        "model.layers.0.attn.masked_bias": torch.zeros(1),
    }


@pytest.mark.parametrize(
    ("change", "config", "warning"),
    [
        (headless, {"tie_word_embeddings": True}, None),
        (old_buffers, {}, None),
        (
            with_spare("v_head.summary.weight"),
            {},
            "1 tensor (v_head.summary.weight) that LlamaForCausalLM does not use",
        ),
        (with_spare("mtp.layers.0.q_proj.weight"), {}, "1 tensor (mtp.layers.0.q_proj.weight)"),
        (with_spare("model.vision_tower.conv.weight"), {}, "1 tensor (model.vision_tower.conv.weight)"),
        (longer, {"num_nextn_predict_layers": 1}, "9 tensors (model.layers.2.input_layernorm.weight, "),
    ],
)
def test_accepted(
    model: Path, change: Callable[[Tensors], Tensors], config: dict[str, Any], warning: str | None
) -> None:
    """What the model does not need is left out; what could have been of use there is said."""
    edit_weights(model, change)
    edit_json(model / "config.json", **config)
    warnings = check_model(model, Lora()).warnings
    assert len(warnings) == (warning is not None)
    assert warning is None or warning in warnings[0]
    load_model(model, "float32")


@pytest.mark.parametrize("model_type", ["mixtral", "qwen3_moe", "bloom", "gemma3n_text", "jamba"])
def test_nothing_is_said_of_a_good_checkpoint(model: Path, model_type: str) -> None:
    """Experts stored apart and built as one, heads that share the embedding."""
    (model / "model.safetensors").unlink()
    families.tiny_model(model_type).save_pretrained(model)
    assert check_model(model, Lora()).warnings == ()


def test_names_of_the_backbone_alone_are_the_models_too(model: Path) -> None:
    """GPT-2 is on the Hub like that, with its causal masks; what a layer has no place for is refused nevertheless."""
    families.tiny_model("gpt2").save_pretrained(model)
    masks = {"h.0.attn.bias": torch.zeros(1, 1, 8, 8), "h.0.attn.masked_bias": torch.zeros(1)}
    edit_weights(model, lambda tensors: {name.removeprefix("transformer."): tensors[name] for name in tensors} | masks)
    assert check_model(model, Lora()).warnings == ()
    edit_weights(model, lambda tensors: tensors | {"h.0.attn.q_norm.weight": torch.zeros(4)})
    with pytest.raises(RunError, match=r"have 1 tensor \(h.0.attn.q_norm.weight\)"):
        check_model(model, Lora())


def test_a_lost_expert_is_refused(model: Path) -> None:
    from transformers import MixtralConfig, MixtralForCausalLM

    config = MixtralConfig(
        vocab_size=384, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, num_local_experts=4,
    )  # fmt: skip
    MixtralForCausalLM(config).save_pretrained(model)
    lost = "layers.0.block_sparse_moe.experts.2.w1."
    edit_weights(model, lambda tensors: {name: value for name, value in tensors.items() if lost not in name})
    with pytest.raises(RunError, match=r"cannot be converted into those of MixtralForCausalLM: .* experts of a layer"):
        check_model(model, Lora(dropout=0))
