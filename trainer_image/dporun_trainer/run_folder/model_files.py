"""The files beside a model's weights: its tokenizer, its chat templates and, if it reads images or sound, processor."""

import shutil
from pathlib import Path

_TOKENIZER = ("tokenizer", "special_tokens", "added_tokens", "chat_template", "vocab", "merges")
"""How the names of a tokenizer's files begin."""
_LEGACY_TEMPLATE = "chat_template.json"
"""A processor's chat template, in the form that came before chat_template.jinja."""
_PROCESSOR = (
    "processor_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "audio_tokenizer_config.json",
    _LEGACY_TEMPLATE,
)
TEMPLATES = "additional_chat_templates"
"""Folder of the chat templates besides the default one, such as tool_use and rag."""


def copy_tokenizer(source: Path, target: Path) -> None:
    """Copy a tokenizer with all of its chat templates."""
    for file in source.iterdir():
        if file.is_file() and file.name.startswith(_TOKENIZER):
            shutil.copy2(file, target / file.name)
    if (source / TEMPLATES).is_dir():
        shutil.copytree(source / TEMPLATES, target / TEMPLATES, dirs_exist_ok=True)


def copy_processor(source: Path, target: Path) -> None:
    """Copy what turns images and sound into numbers, to where the tokenizer is already; often there is nothing."""
    for name in _PROCESSOR:
        # transformers reads no processor that has both its legacy template and a folder of templates.
        if name == _LEGACY_TEMPLATE and (target / TEMPLATES).is_dir():
            continue
        if (source / name).is_file():
            shutil.copy2(source / name, target / name)
