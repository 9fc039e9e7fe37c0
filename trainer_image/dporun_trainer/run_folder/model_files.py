"""The files beside a model's weights: its tokenizer with chat templates, and a processor if it reads images or sound.

They are copied, not saved anew: training changes nothing of them, and what transformers writes in their place is for
its own version (``tokenizer_class``), with a padding token that the model may not have.
"""

import shutil
from pathlib import Path

TEMPLATES = "additional_chat_templates"
"""Folder of the chat templates besides the default one, such as tool_use and rag."""
_TOKENIZER_CONFIG = "tokenizer_config.json"
_TOKENIZER = ("tokenizer", "special_tokens", "added_tokens", "chat_template", "vocab", "merges", "tekken")
_VOCABULARIES = (".model", ".tiktoken")
"""How the names of a tokenizer's files begin, or end."""
_PROCESSOR = (
    "processor_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "audio_tokenizer_config.json",
)


def copy_tokenizer(source: Path, target: Path) -> bool:
    """Copy the tokenizer of the model or adapter in ``source`` with its chat templates; returns whether it has one."""
    if not (source / _TOKENIZER_CONFIG).is_file():
        return False
    for file in source.iterdir():
        if file.is_file() and (file.name.startswith(_TOKENIZER) or file.name.endswith(_VOCABULARIES)):
            shutil.copy2(file, target / file.name)
    if (source / TEMPLATES).is_dir():
        shutil.copytree(source / TEMPLATES, target / TEMPLATES)
    return True


def copy_processor(source: Path, target: Path) -> bool:
    """Copy the processor of the model or adapter in ``source``; returns whether it has one."""
    found = [source / name for name in _PROCESSOR if (source / name).is_file()]
    for file in found:
        shutil.copy2(file, target / file.name)
    return bool(found)
