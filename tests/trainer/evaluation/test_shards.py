"""A model merged file by file is the one that PEFT merges in memory."""

import gc
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from dporun_testing import families
from dporun_testing.adapters import save_random_adapter
from dporun_testing.multimodal import save_tiny_multimodal
from dporun_testing.tiny_model import save_tiny_model
from dporun_trainer.evaluation import shards
from dporun_trainer.evaluation.policy import attach_adapter, load_model
from dporun_trainer.evaluation.shards import stored_weights, write_merged


def merged_by_files(base: Path, adapter: Path, folder: Path, *, max_shard_size: str = "5GB") -> Path:
    folder.mkdir()
    model = load_model(base, "auto")
    weights = stored_weights(model)
    write_merged(attach_adapter(model, adapter), weights, folder, max_shard_size=max_shard_size)
    return folder


def merged_by_peft(base: Path, adapter: Path, folder: Path) -> Path:
    model: Any = attach_adapter(load_model(base, "auto"), adapter)
    model.merge_and_unload(safe_merge=True).save_pretrained(folder)
    return folder


def save(model_type: str, folder: Path, tokenizer: Path) -> Path:
    if model_type == "gemma3":
        return save_tiny_multimodal(folder, "gemma3")
    return families.save(families.tiny_model(model_type), folder, tokenizer)


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "gemma2", "gemma3"])
def test_the_same_files_as_peft_merges(model_type: str, tiny_model: Path, tmp_path: Path) -> None:
    """Layers that store their weights transposed, a tied head, and a whole model that reads images, as well."""
    base = save(model_type, tmp_path / "base", tiny_model)
    adapter = save_random_adapter(base, tmp_path / "adapter")
    ours, theirs = merged_by_files(base, adapter, tmp_path / "ours"), merged_by_peft(base, adapter, tmp_path / "theirs")
    found, expected = (load_file(folder / "model.safetensors") for folder in (ours, theirs))
    assert found.keys() == expected.keys() == load_file(base / "model.safetensors").keys()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    for name in ("config.json", "generation_config.json"):
        assert json.loads((ours / name).read_text()) == json.loads((theirs / name).read_text())


def test_large_models_have_several_files(tiny_model: Path, tmp_path: Path) -> None:
    adapter = save_random_adapter(tiny_model, tmp_path / "adapter")
    one = merged_by_files(tiny_model, adapter, tmp_path / "one")
    several = merged_by_files(tiny_model, adapter, tmp_path / "several", max_shard_size="50KB")
    assert len(list(several.glob("model-*-of-*.safetensors"))) > 2
    loaded = (AutoModelForCausalLM.from_pretrained(folder).state_dict() for folder in (one, several))
    torch.testing.assert_close(*loaded, rtol=0, atol=0)


def test_no_weight_that_is_not_a_number_is_written(tiny_model: Path, tmp_path: Path) -> None:
    adapter = save_random_adapter(tiny_model, tmp_path / "adapter", scale=float("inf"))
    with pytest.raises(ValueError, match="NaNs detected"):
        merged_by_files(tiny_model, adapter, tmp_path / "merged")


def test_a_weight_that_is_stored_otherwise_is_not_left_out(tiny_model: Path, tmp_path: Path) -> None:
    adapter = save_random_adapter(tiny_model, tmp_path / "adapter")
    model = load_model(tiny_model, "auto")
    weights = stored_weights(model)
    weights["model.layers.0.mlp.up_proj.weight"] = weights["model.layers.0.mlp.up_proj.weight"].clone()
    with pytest.raises(NotImplementedError, match=r"layers\.0\.mlp\.up_proj is not stored as one tensor"):
        write_merged(attach_adapter(model, adapter), weights, tmp_path, max_shard_size="5GB")


def test_merging_takes_the_memory_of_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a model of 180 MB in files of 10: by the kernel's count of the process's own memory, without mapped files.

    The allocator keeps some of what it had: up to 56 MB were seen, so the bound is what a copy of the whole exceeds.
    """
    base = save_tiny_model(tmp_path / "base", hidden_size=768, layers=8)
    adapter = save_random_adapter(base, tmp_path / "adapter")
    gc.collect()
    before, taken = anonymous_memory(), []

    def save_and_look(*arguments: Any, **named: Any) -> None:
        save_file(*arguments, **named)
        taken.append(anonymous_memory() - before)

    monkeypatch.setattr(shards, "save_file", save_and_look)
    merged_by_files(base, adapter, tmp_path / "merged", max_shard_size="10MB")
    size = (base / "model.safetensors").stat().st_size
    assert size > 160e6
    assert len(taken) > 16
    assert max(taken) < size / 2, taken


def anonymous_memory() -> int:
    """Bytes that this process has written, not those of the files that it maps."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon:"))
    return int(line.split()[1]) * 1024
