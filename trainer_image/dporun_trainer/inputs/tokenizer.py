"""The tokenizer of the base model: loaded without running code that comes with it, and fit for training."""

from pathlib import Path
from typing import Any

from dporun_api.text import shorten
from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer.errors import RunError
from dporun_trainer.inputs.weights import unfit

FAST = "tokenizer.json"
"""The one form of a tokenizer that needs no further library."""
_UNREAD = (".model", ".tiktoken", "tekken.json")
"""Ends of the names of tokenizers that need sentencepiece, tiktoken or mistral-common; the image has none of them."""


def load_tokenizer(folder: Path) -> Any:
    """Load the tokenizer of a model.

    Raises:
        RunError: there is none, or it cannot be read.

    """
    from transformers import AutoTokenizer  # noqa: PLC0415  heavy

    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # transformers raises whatever it stumbles on
        message, hint = _explain(folder, error)
        raise RunError(Reason.MODEL_INVALID, message, hint=hint) from error


def check_tokenizer(folder: Path, vocabulary: int) -> None:
    """Make sure that the tokenizer ends answers, and knows no token that the model does not.

    Args:
        folder: of the model.
        vocabulary: rows of the model's embedding.

    Raises:
        RunError: the tokenizer cannot be read, or it does not fit.

    """
    tokenizer = load_tokenizer(folder)
    if tokenizer.eos_token_id is None:
        raise unfit(
            f"the tokenizer in {folder} has no EOS token, so that no answer would end",
            'Set "eos_token" in its tokenizer_config.json.',
        )
    highest = max(tokenizer.get_vocab().values(), default=0)
    if highest >= vocabulary:
        raise unfit(
            f"the tokenizer in {folder} has token ids up to {highest}, the model's embedding has {vocabulary} rows",
            "Use the tokenizer that belongs to the model, or resize the model's embedding.",
        )


def _explain(folder: Path, error: Exception) -> tuple[str, str]:
    """Say why a tokenizer cannot be loaded, and what to do."""
    if (folder / FAST).is_file():
        return f"the tokenizer in {folder} cannot be read: {shorten(str(error), 300)}", f"Fetch {FAST} again."
    save = f"load it once where it can be read, and save it with save_pretrained: that writes {FAST}"
    if others := sorted(path.name for path in folder.iterdir() if path.name.endswith(_UNREAD)):
        return (
            f"the tokenizer in {folder} is only there as {others[0]}, a form that this image does not read",
            f"Add {FAST}: many repositories have it beside; else {save}.",
        )
    if "trust_remote_code" in str(error):
        return (
            f"the tokenizer in {folder} needs code that comes with it, which is never run",
            f"Add {FAST}: {save}.",
        )
    return (
        f"there is no tokenizer in {folder} ({FAST} is missing)",
        f"Add {FAST} and tokenizer_config.json of the model that this one was tuned from.",
    )
