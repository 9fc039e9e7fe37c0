"""What the headers of safetensors files tell about a model, and which files of a repository are fetched."""

import shutil
from pathlib import Path

import pytest

from dporun_testing.models import split_weights
from dporun_trainer.errors import RunError
from dporun_trainer.inputs.weights import INDEX, WEIGHTS, fingerprint, read_shards, wanted


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model that a test may change."""
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def test_every_shard_is_read(model: Path) -> None:
    [whole] = read_shards(model)
    split_weights(model)
    first, second = read_shards(model)
    assert first.tensors | second.tensors == whole.tensors


def test_fingerprint_tells_models_apart(tiny_model: Path, model: Path) -> None:
    first = fingerprint(read_shards(tiny_model))
    assert fingerprint(read_shards(model)) == first
    weights = (model / WEIGHTS).read_bytes()
    (model / WEIGHTS).write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    assert fingerprint(read_shards(model)) != first


def test_only_what_is_needed_is_fetched() -> None:
    texts = ["config.json", "tokenizer.json", "tokenizer.model", "merges.txt", "chat_template.jinja"]
    texts += ["preprocessor_config.json", "additional_chat_templates/tool_use.jinja"]
    names = [*texts, "README.md", "assets/chat_template.jinja"]
    more = ["pytorch_model.bin", "consolidated.safetensors", "original/model.safetensors", "onnx/model.onnx"]
    assert wanted([*names, *more, "model.safetensors"]) == ["model.safetensors", *texts]
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    assert wanted([*names, *more, *shards, INDEX]) == [*shards, *texts, INDEX]
    with pytest.raises(RunError, match="as pickle"):
        wanted([*names, "pytorch_model.bin"])
