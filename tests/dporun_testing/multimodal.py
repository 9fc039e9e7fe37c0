"""Tiny random models that read images as well, with the files of their processors, as such checkpoints are published.

Torch is imported on use.
"""

from pathlib import Path
from typing import Any, Literal

from dporun_testing.tiny_model import save_tiny_model

Family = Literal["gemma3", "qwen3_5", "qwen2_5_vl"]
TOKENS = {"image_token": "<img>", "boi_token": "<boi>", "eoi_token": "<eoi>"}


def save_tiny_multimodal(folder: Path, family: Family, *, seed: int = 0) -> Path:
    """Write a model with a vision tower (safetensors, float32), its tokenizer and processor, and return ``folder``.

    gemma3 is one of those that AutoModelForCausalLM builds whole, qwen3_5 of those that it builds without the tower,
    qwen2_5_vl of those that it does not build.
    """
    import torch
    from transformers import CONFIG_MAPPING, AutoModelForMultimodalLM, AutoTokenizer

    save_tiny_model(folder, seed=seed)
    tokenizer = AutoTokenizer.from_pretrained(folder, extra_special_tokens=TOKENS)
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 512,
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": None,
    }
    torch.manual_seed(seed)
    image = tokenizer.convert_tokens_to_ids(TOKENS["image_token"])
    name = "image_token_index" if family == "gemma3" else "image_token_id"
    config = CONFIG_MAPPING[family](**_CONFIGS[family](text), **{name: image})
    model = AutoModelForMultimodalLM.from_config(config)
    for weight in model.parameters():
        if weight.dim() == 2 and not weight.any():  # Gemma's way from images to the language model begins closed
            torch.nn.init.normal_(weight, std=0.1)
    (folder / "generation_config.json").unlink()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    _save_processor(folder, family, tokenizer)
    return folder


def _gemma3(text: dict[str, Any]) -> dict[str, Any]:
    vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    return {
        "text_config": text | {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]},
        "vision_config": vision | {"image_size": 16, "patch_size": 4},
        "mm_tokens_per_image": 4,
    }


def _qwen(text: dict[str, Any], **vision: Any) -> dict[str, Any]:
    tower = {"depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 4, "out_hidden_size": 32}
    return {"text_config": text, "vision_config": tower | {"patch_size": 4} | vision}


def _qwen3_5(text: dict[str, Any]) -> dict[str, Any]:
    linear = {f"linear_{name}": size for name, size in (("num_key_heads", 2), ("num_value_heads", 4))}
    heads = {"linear_key_head_dim": 8, "linear_value_head_dim": 8}
    layers = {"layer_types": ["linear_attention", "full_attention"]}
    return _qwen(text | linear | heads | layers, num_position_embeddings=16, deepstack_visual_indexes=[])


def _qwen2_5_vl(text: dict[str, Any]) -> dict[str, Any]:
    rope = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [1, 1, 2]}
    return _qwen(text | {"rope_parameters": rope}, fullatt_block_indexes=[1])


_CONFIGS = {"gemma3": _gemma3, "qwen3_5": _qwen3_5, "qwen2_5_vl": _qwen2_5_vl}


def _save_processor(folder: Path, family: Family, tokenizer: Any) -> None:
    """Write preprocessor_config.json and processor_config.json apart, as checkpoints on the Hub have them."""
    from transformers import Gemma3ImageProcessorPil, Gemma3Processor, Qwen2VLImageProcessorPil

    from dporun_api.files import read_json, write_json

    if family == "gemma3":
        images = Gemma3ImageProcessorPil(size={"height": 16, "width": 16})
        Gemma3Processor(image_processor=images, tokenizer=tokenizer, image_seq_length=4).save_pretrained(folder)
        config = read_json(folder / "processor_config.json")
        write_json(folder / "preprocessor_config.json", config.pop("image_processor"))
        write_json(folder / "processor_config.json", config)
    else:
        Qwen2VLImageProcessorPil(patch_size=4).save_pretrained(folder)
        write_json(folder / "video_preprocessor_config.json", read_json(folder / "preprocessor_config.json"))
