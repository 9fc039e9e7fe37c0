"""Kinds of models that are refused by their config.json, and what a user reads about them."""

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from dporun_api.v1alpha1.reasons import Reason
from dporun_testing.families import tiny_config
from dporun_testing.models import edit_json
from dporun_testing.multimodal import save_tiny_multimodal
from dporun_trainer.errors import RunError
from dporun_trainer.inputs.structure import build_empty, read_config, require_trainable

ANOTHER = "Use a decoder-only language model, such as Llama or Qwen."
BUILT_IN = "Use a model whose architecture is part of transformers."
QUANTIZED = "the model in MODEL is quantized"
UNQUANTIZED = "Use its unquantized weights: an adapter merges into those only."
APART = "does not keep its layers apart from its output head, as TRL needs it"
BETWEEN = "between its layers and its output embeddings, which TRL leaves out: something else would be trained"
LEFT_OUT = "in config.json), which TRL leaves out: something else would be trained"
ENCODER = "is an encoder: it reads a text in both directions and cannot continue it"


def check(folder: Path) -> None:
    require_trainable(build_empty(read_config(folder)))


def refusal(folder: Path) -> tuple[str, str | None]:
    with pytest.raises(RunError) as raised:
        check(folder)
    assert raised.value.reason is Reason.MODEL_INVALID
    return raised.value.message.replace(str(folder), "MODEL"), raised.value.hint


@pytest.mark.parametrize(
    ("config", "message", "hint"),
    [
        ({"model_type": "t5"}, "a t5 model is an encoder-decoder, for which TRL has no DPO", ANOTHER),
        ({"model_type": "bart"}, "a bart model is an encoder-decoder, for which TRL has no DPO", ANOTHER),
        ({"model_type": "whisper"}, "a whisper model is an encoder-decoder, for which TRL has no DPO", ANOTHER),
        ({"model_type": "clip"}, "a clip model does not generate text", ANOTHER),
        ({"model_type": "vit"}, "a vit model does not generate text", ANOTHER),
        ({"model_type": "gemma3n"}, "a gemma3n model needs timm, which this image does not have", ANOTHER),
        (
            {"model_type": "llama9"},
            f"transformers {version('transformers')}, which this image has, knows no models of type 'llama9'",
            "Use an image with a newer transformers, or a model of another type.",
        ),
        (
            {"model_type": "homemade", "auto_map": {"AutoConfig": "configuration.HomemadeConfig"}},
            "the model in MODEL needs code that comes with it, which is never run",
            BUILT_IN,
        ),
        ({"model_type": "gpt_oss", "quantization_config": {"quant_method": "mxfp4"}}, QUANTIZED, UNQUANTIZED),
        ({"model_type": "llama", "quantization_config": {"quant_method": "fp8"}}, QUANTIZED, UNQUANTIZED),
        (
            {"model_type": "llama", "hidden_size": 64, "num_attention_heads": 7},
            "MODEL/config.json cannot be read: ",
            "Correct it, or fetch it again.",
        ),
    ],
    ids=lambda value: value.get("model_type") if isinstance(value, dict) else "",
)
def test_refused_by_its_configuration(tmp_path: Path, config: dict[str, Any], message: str, hint: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    said, advice = refusal(tmp_path)
    assert said == message or (message.endswith(": ") and said.startswith(message))
    assert advice == hint


@pytest.mark.parametrize(
    ("model_type", "changes", "message"),
    [
        ("bert", {"is_decoder": False}, f"BertLMHeadModel {ENCODER}"),
        ("bert-generation", {"is_decoder": False}, f"BertGenerationDecoder {ENCODER}"),
        ("rembert", {"is_decoder": False}, f"RemBertForCausalLM {ENCODER}"),
        ("xlnet", {}, f"XLNetLMHeadModel {ENCODER}"),
        ("gemma3_text", {"use_bidirectional_attention": True}, f"Gemma3ForCausalLM {ENCODER}"),
        (
            "roberta",
            {"is_decoder": True},
            f"RobertaForCausalLM has lm_head.dense, lm_head.layer_norm {BETWEEN}",
        ),
        (
            "modernbert-decoder",
            {},
            f"ModernBertDecoderForCausalLM has lm_head.dense, lm_head.norm {BETWEEN}",
        ),
        ("recurrent_gemma", {}, f"RecurrentGemmaForCausalLM scales or caps its logits (logits_soft_cap {LEFT_OUT}"),
        ("xlstm", {}, f"xLSTMForCausalLM scales or caps its logits (output_logit_soft_cap {LEFT_OUT}"),
        ("llama4_text", {}, f"Llama4ForCausalLM {APART}"),
        ("llama4", {}, f"Llama4ForConditionalGeneration {APART}"),
        (
            "cpmant",
            {},
            "CpmAntForCausalLM reads a prompt in both directions, which TRL does not allow for: something else would "
            "be trained",
        ),
        ("paligemma", {}, f"PaliGemmaForConditionalGeneration {ENCODER}"),
        (
            "cohere2_vision",
            {},
            "Cohere2VisionForConditionalGeneration does not scale or cap its logits by logit_scale of its language "
            "model, as TRL does: something else would be trained",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 20 else "",
)
def test_refused_by_its_structure(tmp_path: Path, model_type: str, changes: dict[str, Any], message: str) -> None:
    tiny_config(model_type, **changes).save_pretrained(tmp_path)
    assert refusal(tmp_path) == (message, ANOTHER)


@pytest.mark.parametrize(
    "model_type",
    ["llama", "gpt2", "gpt_neox", "bloom", "gemma3n_text", "mixtral", "jamba", "mamba", "lfm2", "trocr", "mllama"],
)
def test_accepted(tmp_path: Path, model_type: str) -> None:
    """Among them one that says it is no decoder, one that is half of an encoder-decoder, and some without attention."""
    tiny_config(model_type).save_pretrained(tmp_path)
    check(tmp_path)


def test_a_tower_may_look_in_both_directions(tmp_path: Path) -> None:
    """Many published configurations say of the language model that it is no decoder, as old defaults were."""
    folder = save_tiny_multimodal(tmp_path, "gemma3")
    text = json.loads((folder / "config.json").read_text())["text_config"]
    edit_json(folder / "config.json", text_config=text | {"is_decoder": False, "is_encoder_decoder": False})
    check(folder)
