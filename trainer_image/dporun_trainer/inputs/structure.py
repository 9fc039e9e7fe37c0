"""The structure of the base model, from its config.json alone, and whether DPO with TRL can train it."""

import inspect
import json
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dporun_api.text import shorten
from dporun_trainer.architectures import auto_class, language_model
from dporun_trainer.inputs.weights import unfit

_ANOTHER = "Use a decoder-only language model, such as Llama or Qwen."
_MUTE = "does not generate text"
_SCALES_UNKNOWN_TO_TRL = ("logits_soft_cap", "output_logit_soft_cap", "logits_mup_width_multiplier")
"""Of RecurrentGemma, xLSTM and Inkling."""
_SCALES_OF_TRL = ("final_logit_softcapping", "logit_scale", "output_multiplier", "lm_head_multiplier", "logits_scaling")
_OTHER_OBJECTIVES = {
    "cpmant": "reads a prompt in both directions",
    "prophetnet": "predicts several tokens at once, each from a hidden state of its own",
}
"""Types that only trying them told from the others (tests/dporun_testing/model_table.py)."""
_CODE = "needs code that comes with it, which is never run"
_BUILT_IN = "Use a model whose architecture is part of transformers."


def read_config(folder: Path) -> Any:
    """Read the configuration of a model.

    Raises:
        RunError: there is none, it cannot be read, or it is one of a model that cannot be trained.

    """
    from transformers import AutoConfig  # noqa: PLC0415  heavy

    path = folder / "config.json"
    if not path.is_file():
        if (folder / "adapter_config.json").is_file():
            raise unfit(f"{folder} holds an adapter, not a model", "Name its base model, or merge it first.")
        raise unfit(f"{path} is missing", "Name the folder of a transformers model.")
    _require_known(path)
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # transformers raises whatever it stumbles on
        raise unfit(f"{path} cannot be read: {shorten(str(error), 300)}", "Correct it, or fetch it again.") from error
    if getattr(config, "quantization_config", None):
        raise unfit(
            f"the model in {folder} is quantized", "Use its unquantized weights: an adapter merges into those only."
        )
    if _encodes_first(config) or _encodes_first(config.get_text_config()):
        raise unfit(f"a {config.model_type} model is an encoder-decoder, for which TRL has no DPO", _ANOTHER)
    return config


def build_empty(config: Any) -> Any:
    """Build the model on torch's meta device: all of its structure, none of its weights.

    Raises:
        RunError: transformers has no language model for this configuration, or it cannot build it.

    """
    import torch  # noqa: PLC0415  heavy
    import transformers  # noqa: PLC0415

    kind = config.model_type
    generating = (transformers.MODEL_FOR_CAUSAL_LM_MAPPING, transformers.MODEL_FOR_MULTIMODAL_LM_MAPPING)
    if not any(type(config) in mapping for mapping in generating):
        if getattr(config, "auto_map", None):
            raise unfit(f"a {kind} model {_CODE}", _BUILT_IN)
        raise unfit(f"a {kind} model {_MUTE}", _ANOTHER)
    try:
        with torch.device("meta"):
            return auto_class(config).from_config(config, trust_remote_code=False)
    except ImportError as error:
        named = re.search(r"requires the (\S+) library|No module named '(\w+)", str(error))
        library = (named[1] or named[2]) if named else "a library"
        raise unfit(f"a {kind} model needs {library}, which this image does not have", _ANOTHER) from error
    except Exception as error:  # transformers raises whatever it stumbles on
        raise unfit(
            f"transformers builds no {kind} model from config.json: {shorten(str(error), 300)}",
            "Use the config.json that the model was saved with.",
        ) from error


def require_trainable(model: Any) -> None:
    """Refuse a model that generates no text from left to right, or whose log-probabilities TRL would get wrong.

    TRL takes the last hidden states of ``model.base_model`` and multiplies them with the output embeddings
    (trl/trainer/utils.py, ``add_fused_lm_head``): nothing else may be in between.

    Raises:
        RunError: the model is one of these.

    """
    name, config = type(model).__name__, model.config.get_text_config()
    if model.get_output_embeddings() is None:
        raise unfit(f"{name} {_MUTE}", _ANOTHER)
    if model.base_model is model:
        raise unfit(f"{name} does not keep its layers apart from its output head, as TRL needs it", _ANOTHER)
    between = _between(model)
    if (
        (getattr(config, "is_decoder", None) is False and (between or _bidirectional(model)))
        or getattr(config, "causal", None) is False  # XLM
        or getattr(config, "attn_type", None) == "bi"  # XLNet
        or getattr(config, "use_bidirectional_attention", None) in {True, "all"}  # Gemma as an encoder, PaliGemma
    ):
        raise unfit(f"{name} is an encoder: it reads a text in both directions and cannot continue it", _ANOTHER)
    if between:
        raise unfit(
            f"{name} has {', '.join(between)} between its layers and its output embeddings, which TRL leaves out: "
            "something else would be trained",
            _ANOTHER,
        )
    if other := _OTHER_OBJECTIVES.get(config.model_type):
        raise unfit(f"{name} {other}, which TRL does not allow for: something else would be trained", _ANOTHER)
    if scaled := [setting for setting in _SCALES_UNKNOWN_TO_TRL if getattr(config, setting, None) is not None]:
        raise unfit(
            f"{name} scales or caps its logits ({', '.join(scaled)} in config.json), which TRL leaves out: something "
            "else would be trained",
            _ANOTHER,
        )
    if unread := _scales_left_to_the_text_class(model, config):
        raise unfit(
            f"{name} does not scale or cap its logits by {', '.join(unread)} of its language model, as TRL does: "
            "something else would be trained",
            _ANOTHER,
        )


def _scales_left_to_the_text_class(model: Any, config: Any) -> list[str]:
    """Settings of a multimodal model's language model that TRL applies, and the whole model does not (Aya Vision)."""
    if config is model.config:
        return []
    source = inspect.getsource(type(model).forward)
    used = [setting for setting in _SCALES_OF_TRL if getattr(config, setting, None) not in {None, 1}]
    return [setting for setting in used if setting not in source]


def _require_known(path: Path) -> None:
    """Refuse a type of model that transformers, in the version that is installed, does not know."""
    from transformers import CONFIG_MAPPING  # noqa: PLC0415  heavy

    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        kind = config["model_type"]
    except (ValueError, KeyError, TypeError):
        return  # transformers says what is wrong, or finds the type in the folder's name
    if kind in CONFIG_MAPPING:
        return
    if "auto_map" in config:
        raise unfit(f"the model in {path.parent} {_CODE}", _BUILT_IN)
    raise unfit(
        f"transformers {version('transformers')}, which this image has, knows no models of type {kind!r}",
        "Use an image with a newer transformers, or a model of another type.",
    )


def _encodes_first(config: Any) -> bool:
    return getattr(config, "is_encoder_decoder", None) is True


def _between(model: Any) -> list[str]:
    """Modules with weights that are neither in the backbone nor the output embeddings."""
    inside = {id(weight) for part in (model.base_model, model.get_output_embeddings()) for weight in part.parameters()}
    paths = (path for path, weight in model.named_parameters(remove_duplicate=False) if id(weight) not in inside)
    return sorted({path.rpartition(".")[0] for path in paths})


def _bidirectional(model: Any) -> bool:
    """Whether the language model has attention that says of itself that it is not causal; a vision tower may."""
    part = language_model(model)
    within = model if part is None else model.get_submodule(part)
    return any(getattr(module, "is_causal", True) is False for module in within.modules())
