"""The pairs that prepare wrote, as a dataset that TRL tokenizes."""

from pathlib import Path
from typing import Any

import datasets


def load_pairs(files: dict[str, str], cache: Path, *, conversational: bool) -> Any:
    """Load JSONL of pairs (``Pair.line``).

    Messages come back key by key as they were written. Without types for the columns, datasets infers them from the
    first 10 MiB, and cannot read a later row with tools or with keys that no earlier message has.

    Args:
        files: paths by name of the split.
        cache: folder for what is loaded.
        conversational: whether the pairs are messages rather than text.

    Returns:
        Datasets by name of the split.

    """
    kind = datasets.Json() if conversational else datasets.Value("string")
    features = datasets.Features(dict.fromkeys(("prompt", "chosen", "rejected"), kind))
    features["tools"] = datasets.Value("string")
    return datasets.load_dataset("json", data_files=files, features=features, cache_dir=str(cache))
