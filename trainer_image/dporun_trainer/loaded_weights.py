"""Whether a checkpoint fills the model that is built for it: one answer for prepare, training and evaluation. No torch.

transformers draws at random what a checkpoint lacks, leaves out what the model has no place for, and goes on.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer.errors import RunError

_COMPUTED = re.compile(
    r"(^|\.)(inv_freq|masked_bias|causal_mask|position_ids|cos_cached|sin_cached|(attn|attention)\.bias)$"
)
"""Buffers that older versions saved, and the model computes."""
_WRAPPERS = {
    "_orig_mod.": "torch.compile",
    "_fsdp_wrapped_module.": "FSDP",
    "_checkpoint_wrapped_module.": "activation checkpointing",
    "base_model.model.": "PEFT",
    "module.": "DistributedDataParallel or DeepSpeed",
}
"""What training wraps a model in, by the part of the names that it leaves behind."""
_SHOWN = 3


def require_weights(model: Any, info: Mapping[str, Any], source: object) -> list[str]:
    """Refuse a checkpoint that does not hold the model's weights; returns warnings about what it holds besides.

    Args:
        model: as ``from_pretrained`` returns it.
        info: what that says with ``output_loading_info`` and ``ignore_mismatched_sizes``: names are the model's.
        source: where the checkpoint is, for people.

    Raises:
        RunError: weights are missing, have another shape, or belong into layers as the model does not have them.

    """
    name = type(model).__name__
    unexpected = sorted(key for key in info["unexpected_keys"] if not _COMPUTED.search(key))
    if missing := sorted(info["missing_keys"]):
        raise _misfit(
            f"the weights in {source} lack {_some(missing)} of {name}: they would start at random",
            _mend(missing, unexpected),
        )
    if mismatched := sorted(info["mismatched_keys"]):
        key, stored, built = mismatched[0]
        raise _misfit(
            f"the weights in {source} have other shapes than {name} of config.json: {key} is {_shape(stored)} instead "
            f"of {_shape(built)}" + (f", and {len(mismatched) - 1} more" if mismatched[1:] else ""),
            "Use the config.json that the weights were saved with.",
        )
    modules = {module for module, _ in model.named_modules()}
    root, beyond = model.base_model_prefix, getattr(model.config.get_text_config(), "num_nextn_predict_layers", None)
    beside = [key for key in unexpected if _is_beside(key, modules, root) or _predicts(key, modules, beyond or 0)]
    if inside := [key for key in unexpected if key not in beside]:
        raise _misfit(
            f"the weights in {source} have {_some(inside)}, for which {name} of config.json has no place: another "
            "model would be trained than the one that was saved",
            "Use the config.json that the weights were saved with. If the model answers well without them, load it "
            "with transformers and save it with save_pretrained, which leaves them out.",
        )
    if not beside:
        return []
    return [f"the checkpoint has {_some(beside)} that {name} does not use; the merged model will lack them"]


def _mend(missing: Sequence[str], unexpected: Sequence[str]) -> str:
    """Say how the names of a checkpoint become those of the model, or where else the weights may be."""
    if any(".lora_A." in key for key in unexpected):
        return "They are wrapped by PEFT: merge the adapter with merge_and_unload() and save the result."
    for part, wrapper in _WRAPPERS.items():
        unwrapped = {key.replace(part, "") for key in unexpected}
        if unwrapped.intersection(missing):
            return (
                f'The names contain "{part}", which {wrapper} leaves behind: save the model without its wrapper, or '
                "take that part out of the names."
            )
    if all(key.startswith(("lm_head.", "embed_out.")) for key in missing):
        return (
            'If the head shares the weights of the embedding, set "tie_word_embeddings": true in config.json; else '
            "fetch the whole model again."
        )
    return "Fetch the whole model again, or use the config.json that the weights were saved with."


def _is_beside(key: str, modules: Collection[str], root: str) -> bool:
    """Whether a tensor belongs to a part of its own, such as a value head, and not to layers, embedding or head."""
    if f"{root}.{key.split('.', maxsplit=1)[0]}" in modules:  # saved from the backbone alone
        key = f"{root}.{key}"
    part, rest = _known_part(key, modules)
    of_a_layer = any(name.isdigit() for name in (*part.split("."), rest.split(".")[0]))
    has_layers = any(name.startswith(f"{part}.") and name.split(".")[-1].isdigit() for name in modules)
    return not of_a_layer and (has_layers or not part)


def _predicts(key: str, modules: Collection[str], beyond: int) -> bool:
    """Whether a tensor is of one of the layers after the last, that predict tokens beyond the next (MTP)."""
    layers, rest = _known_part(key, modules)
    number = rest.split(".")[0]
    known = sum(name.startswith(f"{layers}.") and "." not in name[len(layers) + 1 :] for name in modules)
    return number.isdigit() and known <= int(number) < known + beyond


def _known_part(key: str, modules: Collection[str]) -> tuple[str, str]:
    """Split a name after its longest beginning that is a module: (module, rest)."""
    parts = key.split(".")
    for end in range(len(parts), 0, -1):
        if (name := ".".join(parts[:end])) in modules:
            return name, ".".join(parts[end:])
    return "", key


def _some(keys: Sequence[str]) -> str:
    shown = ", ".join(keys[:_SHOWN])
    return f"{len(keys)} tensor{'s' if len(keys) > 1 else ''} ({shown}{', …' if len(keys) > _SHOWN else ''})"


def _shape(shape: Sequence[int]) -> str:
    return " x ".join(str(size) for size in shape)


def _misfit(message: str, hint: str) -> RunError:
    return RunError(Reason.MODEL_INVALID, message, hint=hint)
