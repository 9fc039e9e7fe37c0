"""Tiny random models of every causal type that transformers knows: the architecture is real, only the sizes are not."""

import inspect
import shutil
from pathlib import Path
from typing import Any

HIDDEN, LAYERS, VOCABULARY = 64, 2, 384

_SIZES: dict[str, Any] = {
    # width
    **dict.fromkeys(
        ("hidden_size", "d_model", "n_embd", "emb_dim", "embedding_size", "embedding_dim", "word_embed_proj_dim",
         "lru_width", "attention_hidden_size", "input_embedding_size", "output_embedding_size"), HIDDEN,
    ),
    **dict.fromkeys(
        ("intermediate_size", "ffn_dim", "encoder_ffn_dim", "decoder_ffn_dim", "dff", "dim_ff", "d_inner",
         "ffn_hidden_size", "n_inner", "intermediate_size_mlp", "feed_forward_size", "dense_intermediate_size"),
        2 * HIDDEN,
    ),
    **dict.fromkeys(
        ("moe_intermediate_size", "shared_expert_intermediate_size", "shared_intermediate_size",
         "shared_experts_intermediate_size", "expert_ffn_hidden_size", "moe_shared_expert_intermediate_size"), 32,
    ),
    # depth
    **dict.fromkeys(
        ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers", "decoder_layers",
         "num_encoder_layers", "num_decoder_layers", "num_blocks"), LAYERS,
    ),
    # heads
    **dict.fromkeys(
        ("num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads", "attention_heads",
         "decoder_attention_heads", "num_encoder_attention_heads", "num_decoder_attention_heads",
         "linear_num_key_heads", "linear_num_value_heads", "linear_num_heads", "swa_num_attention_heads"), 4,
    ),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads", "swa_num_key_value_heads", "num_query_groups"), 2),
    **dict.fromkeys(
        ("head_dim", "qk_rope_head_dim", "v_head_dim", "qk_nope_head_dim", "linear_key_head_dim", "index_head_dim",
         "linear_value_head_dim", "linear_head_dim", "attention_head_dim", "swa_head_dim", "kv_channels", "d_head",
         "global_head_dim"), 16,
    ),
    "qk_head_dim": 32, "kv_lora_rank": 16, "q_lora_rank": 16, "o_lora_rank": 16, "index_n_heads": 2, "index_topk": 16,
    # experts
    **dict.fromkeys(
        ("num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts"), 4,
    ),
    **dict.fromkeys(
        ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k"), 2,
    ),
    **dict.fromkeys(("n_group", "topk_group", "num_expert_group", "first_k_dense_replace", "n_shared_experts",
         "moe_num_shared_experts"), 1),
    # vocabulary and positions
    **dict.fromkeys(("vocab_size", "vocab_size_per_layer_input"), VOCABULARY),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "context_length"), 512),
    "hidden_size_per_layer_input": 16, "sliding_window": 32,
    "mamba_n_heads": 8, "mamba_d_head": 16, "mamba_num_heads": 8, "mamba_head_dim": 16, "mamba_d_ssm": 128,
    "mamba_dt_rank": 4, "time_step_rank": 4, "mamba_d_state": 16, "state_size": 16, "ssm_state_size": 16,
    "rotary_dim": 8, "num_kv_shared_layers": 0, "image_size": 32, "patch_size": 8,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 3,
}  # fmt: skip

_OF_TYPE: dict[str, dict[str, Any]] = {
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    "mamba2": {"num_heads": 8, "head_dim": 16},
    "cohere_compass_text": {
        "layer_types": ["sliding_attention", "full_attention"],
        "rope_parameters": {
            layer: {"rope_type": "default", "rope_theta": 1e4} for layer in ("sliding_attention", "full_attention")
        },
    },
    "xmod": {"default_language": "en_XX"},
    "zamba": {"num_hidden_layers": 3},
    "zamba2": {"layer_types": ["mamba", "hybrid"], "num_mem_blocks": 1, "hybrid_layer_ids": [1]},
    "zaya": {"num_experts_per_tok": 1},
    "gemma3n_text": {"num_hidden_layers": 5, "layer_types": 4 * ["sliding_attention"] + ["full_attention"]},
}  # fmt: skip
"""What a type needs besides; hybrids have a layer of each kind."""


def tiny_config(model_type: str, **changes: Any) -> Any:
    """Make the configuration of a tiny model.

    Raises:
        Exception: whatever transformers raises: these sizes do not suit the type, or it lacks a library.

    """
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    kind = CONFIG_MAPPING[model_type]
    config = kind(**_sizes(kind) | _OF_TYPE.get(model_type, {}) | changes)
    config.architectures = [architecture(model_type)]
    return config


def architecture(model_type: str) -> str:
    """Name the class that checkpoints of a type are usually saved as: the whole one, where it reads images as well."""
    from transformers.models.auto import modeling_auto as auto

    name: str = (auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES | auto.MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES)[model_type]
    return name


def tiny_model(model_type: str, *, seed: int = 0, **changes: Any) -> Any:
    """Make a tiny model with random weights.

    Raises:
        Exception: whatever transformers raises: it does not build these sizes, or lacks a library.

    """
    import torch

    from dporun_trainer.architectures import auto_class

    torch.manual_seed(seed)
    config = tiny_config(model_type, **changes)
    return auto_class(config).from_config(config).eval()


def spread_logits(model: Any, batch: dict[str, Any], *, deviation: float = 8) -> None:
    """Scale a random model's output embeddings to logits like a trained model's; small ones pass through any cap."""
    import torch

    with torch.no_grad():
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False).logits
        model.get_output_embeddings().weight.mul_(deviation / float(logits.float().std()))


def random_batch(*, sequences: int = 2, prompt: int = 24, response: int = 16) -> dict[str, Any]:
    """Random tokens, as TRL's collator puts them together."""
    import torch

    torch.manual_seed(1)
    ids = torch.randint(4, VOCABULARY, (sequences, prompt + response))
    completion = (torch.arange(prompt + response) >= prompt).long().expand_as(ids)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "completion_mask": completion}


def save(model: Any, folder: Path, tokenizer: Path) -> Path:
    """Write a model to ``folder``, with the tokenizer in ``tokenizer``, and return the folder."""
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        if (tokenizer / name).is_file():
            shutil.copy(tokenizer / name, folder)
    return folder


def _sizes(kind: Any) -> dict[str, Any]:
    known = {*inspect.signature(kind.__init__).parameters, *getattr(kind, "__dataclass_fields__", ())}
    sizes = {name: value for name, value in _SIZES.items() if name in known}
    if "kv_lora_rank" in known and "num_key_value_heads" in known:  # latent attention has no groups
        sizes["num_key_value_heads"] = sizes["num_attention_heads"]
    parts = getattr(kind, "sub_configs", None) or {}
    return sizes | {name: _sizes(part) for name, part in parts.items() if hasattr(part, "model_type")}
