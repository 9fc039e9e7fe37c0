"""Changes of a saved model for tests."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dporun_trainer.inputs.weights import INDEX, WEIGHTS


def split_weights(model: Path) -> None:
    """Split the weights into two files with an index."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(model / WEIGHTS)
    names = sorted(tensors)
    parts = {"model-00001-of-00002.safetensors": names[:5], "model-00002-of-00002.safetensors": names[5:]}
    for part, of_part in parts.items():
        save_file({name: tensors[name] for name in of_part}, model / part, metadata={"format": "pt"})
    weight_map = {name: part for part, of_part in parts.items() for name in of_part}
    (model / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    (model / WEIGHTS).unlink()


def edit_json(path: Path, **changes: Any) -> None:
    """Change keys of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_weights(model: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Store what ``change`` makes of a model's tensors."""
    from safetensors.torch import load_file, save_file

    tensors = {name: tensor.clone() for name, tensor in change(load_file(model / WEIGHTS)).items()}
    save_file(tensors, model / WEIGHTS, metadata={"format": "pt"})
