"""Write base + adapter as one model, one file after the other: only that file's weights are in memory, and merged.

transformers maps a model that it loads onto the CPU in its own type into memory, so the base itself takes none.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from safetensors.torch import save_file
from transformers import PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion
from transformers.modeling_utils import remove_tied_weights_from_state_dict
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME


def stored_weights(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """A model's weights by the names of a checkpoint, as ``save_pretrained`` writes them; none is copied."""
    return dict(revert_weight_conversion(model, remove_tied_weights_from_state_dict(model.state_dict(), model)))


def write_merged(adapted: PeftModel, weights: Mapping[str, torch.Tensor], folder: Path, *, max_shard_size: str) -> None:
    """Write the merged weights, with the model's configuration.

    Args:
        adapted: the base with the adapter, on the CPU.
        weights: the base's, from ``stored_weights`` before the adapter was put on it.
        folder: to write to.
        max_shard_size: of a file, such as "5GB"; twice as much memory is needed.

    Raises:
        ValueError: a merged weight is not finite.
        NotImplementedError: a weight with an adapter is not stored as one tensor of the same layout.

    """
    layers = _adapted_layers(adapted, weights)
    split = split_torch_state_dict_into_shards(
        {name: weight.to("meta") for name, weight in weights.items()},
        filename_pattern="model{suffix}.safetensors",
        max_shard_size=max_shard_size,
    )
    for file, names in split.filename_to_tensors.items():
        merged = {name: _merged(weights[name], layers.get(name)).contiguous() for name in names}
        save_file(merged, folder / file, metadata={"format": "pt"})
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        (folder / SAFE_WEIGHTS_INDEX_NAME).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    model = adapted.get_base_model()
    model.config.architectures = [type(model).__name__]
    model.config.dtype = str(model.dtype).removeprefix("torch.")
    model.config.save_pretrained(folder)
    if model.can_generate():
        model.generation_config.save_pretrained(folder)


def _adapted_layers(adapted: PeftModel, weights: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """The layers with an adapter, by the names under which their weights are stored."""
    names = {(weight.data_ptr(), weight.shape): name for name, weight in weights.items()}
    layers = {}
    for path, layer in adapted.named_modules():
        if isinstance(layer, LoraLayer):
            weight = layer.get_base_layer().weight
            name = names.get((weight.data_ptr(), weight.shape))
            if name is None or name in layers:
                raise NotImplementedError(f"the weight of {path} is not stored as one tensor")
            layers[name] = layer
    return layers


def _merged(weight: torch.Tensor, layer: Any) -> torch.Tensor:
    """The weight with what its adapters add, a sum in float32 of what they compute in their own type."""
    if layer is None:
        return weight
    change = sum(layer.get_delta_weight(name).float() for name in layer.active_adapters)
    merged: torch.Tensor = (weight.float() + change).to(weight.dtype)
    if not torch.isfinite(merged).all():
        raise ValueError("NaNs detected in the merged weights: the adapter seems to be broken")
    return merged
