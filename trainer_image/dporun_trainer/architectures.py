"""The class of transformers that a checkpoint is loaded as, and its part that reads text: one answer for all rooms.

A checkpoint that reads images or sound as well is loaded whole, as the class that its config.json names. What is
trained and merged then has that class's names, and its other weights are those of the base.
"""

from typing import Any

from dporun_api.run_config import Quantization
from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer.errors import RunError
from dporun_trainer.loaded_weights import require_weights
from dporun_trainer.quantization import loading_arguments, settle


def auto_class(config: Any) -> Any:
    """Choose the auto class of transformers that builds the class which the checkpoint is.

    AutoModelForCausalLM builds a text-only class of some multimodal checkpoints (Qwen3.5), without a word, and none of
    others (Qwen2.5-VL).
    """
    import transformers  # noqa: PLC0415  heavy

    multimodal = transformers.MODEL_FOR_MULTIMODAL_LM_MAPPING.get(type(config), None)
    causal = transformers.MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    named = (config.architectures or [None])[0]
    if multimodal is not None and (causal is None or named == multimodal.__name__):
        return transformers.AutoModelForMultimodalLM
    return transformers.AutoModelForCausalLM


def load_model(
    source: str, *, config: Any = None, quantization: Quantization | None = None, dtype: Any = "auto", **arguments: Any
) -> Any:
    """Load the weights of a model from safetensors, without running any code that comes with it.

    Args:
        source: folder or Hub name.
        config: of the model; that of ``source`` when absent.
        quantization: of the linear layers, which then compute in ``dtype``.
        dtype: of the weights, in the words of torch; auto for the one that they are stored in.
        arguments: further ones of ``from_pretrained``.

    Raises:
        RunError: the weights are not those of the model that its configuration describes.

    """
    from transformers import AutoConfig  # noqa: PLC0415  heavy

    config = config or AutoConfig.from_pretrained(source, trust_remote_code=False)
    model, info = auto_class(config).from_pretrained(
        source,
        config=config,
        use_safetensors=True,
        trust_remote_code=False,
        ignore_mismatched_sizes=True,
        output_loading_info=True,
        dtype=dtype,
        **loading_arguments(quantization, dtype),
        **arguments,
    )
    require_weights(model, info, source)
    if quantization:
        settle(model)
    return model


def modalities(model: Any) -> tuple[str, ...]:
    """What a model of transformers reads besides text, in its words: ``image``, ``video``, ``audio``."""
    import transformers  # noqa: PLC0415  heavy

    # A text-only class may inherit the modalities of the whole one, as Gemma3ForCausalLM does.
    if type(model) is not transformers.MODEL_FOR_MULTIMODAL_LM_MAPPING.get(type(model.config), None):
        return ()
    reads = model.input_modalities
    return tuple(modality for modality in ([reads] if isinstance(reads, str) else reads) if modality != "text")


def language_model(model: Any) -> str | None:
    """Name the module of a multimodal model that has to do with text alone; None for a model that reads only text.

    Raises:
        RunError: the model does not keep it apart from what reads images or sound.

    """
    kinds = modalities(model)
    if not kinds:
        return None
    decoder, text = model.get_decoder(), model.config.get_text_config()
    if text is not model.config and decoder.config is text:
        for name, module in model.named_modules():
            if module is decoder and name:
                return str(name)
    raise RunError(
        Reason.MODEL_INVALID,
        f"{type(model).__name__} does not keep its language model apart from what reads its other inputs "
        f"({', '.join(kinds)}), so that an adapter would change both",
        hint="Use a model that reads text alone, or one with a language model of its own inside, as Qwen has.",
    )
