"""What is refused of a base model's files, and what is known about it without loading it."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from dporun_api.pod import ExitCode
from dporun_api.run_config import Lora
from dporun_api.v1alpha1.reasons import Reason
from dporun_testing.models import edit_json, split_weights
from dporun_trainer.errors import RunError
from dporun_trainer.inputs.model import check_model, check_positions
from dporun_trainer.inputs.weights import INDEX, WEIGHTS

PARAMETERS = 43_168
"""Of the tiny model, as torch counts them."""


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model that a test may change."""
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def test_facts(tiny_model: Path) -> None:
    facts = check_model(tiny_model, Lora(rank=4))
    assert facts.architecture == "LlamaForCausalLM"
    assert (facts.parameters, facts.dtype) == (PARAMETERS, "float32")
    assert (facts.layers, facts.hidden_size, facts.vocabulary, facts.max_positions) == (2, 32, 384, 512)
    assert facts.bytes == (tiny_model / WEIGHTS).stat().st_size
    assert facts.lora_modules == 14, "seven linear layers in each of two blocks, not the output head"
    assert facts.lora_parameters == 2 * 4 * (4 * 32 + 2 * (32 + 16) + 3 * (32 + 64))


def test_the_empty_model_has_the_parameters_of_the_real_one(tiny_model: Path) -> None:
    from transformers import AutoModelForCausalLM

    real = AutoModelForCausalLM.from_pretrained(tiny_model)
    assert check_model(tiny_model, Lora()).parameters == sum(parameter.numel() for parameter in real.parameters())


def test_shards_hold_the_same(model: Path) -> None:
    split_weights(model)
    facts = check_model(model, Lora())
    assert facts.parameters == PARAMETERS


def torn(model: Path) -> None:
    (model / WEIGHTS).write_bytes((model / WEIGHTS).read_bytes()[:-100])


def torn_header(model: Path) -> None:
    (model / WEIGHTS).write_bytes((model / WEIGHTS).read_bytes()[:50])


def garbage_header(model: Path) -> None:
    (model / WEIGHTS).write_bytes((100).to_bytes(8, "little") + b"x" * 200)


def empty_weights(model: Path) -> None:
    (model / WEIGHTS).write_bytes(b"")


def lfs_pointer(model: Path) -> None:
    (model / WEIGHTS).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")


def pickled(model: Path) -> None:
    (model / WEIGHTS).rename(model / "pytorch_model.bin")


def no_weights(model: Path) -> None:
    (model / WEIGHTS).unlink()


def no_config(model: Path) -> None:
    (model / "config.json").unlink()


def adapter(model: Path) -> None:
    no_config(model)
    (model / "adapter_config.json").write_text("{}")


def broken_config(model: Path) -> None:
    (model / "config.json").write_text('{"model_type": "llama", "hidden_size": ')


def remote_code(model: Path) -> None:
    edit_json(model / "config.json", model_type="homemade", auto_map={"AutoConfig": "configuration.HomemadeConfig"})


def quantized(model: Path) -> None:
    edit_json(model / "config.json", quantization_config={"quant_method": "gptq", "bits": 4})


def quantized_without_a_word(model: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    weights = load_file(model / WEIGHTS)
    save_file({name: tensor.mul(100).to(torch.int8) for name, tensor in weights.items()}, model / WEIGHTS)


def larger_than_its_weights(model: Path) -> None:
    edit_json(model / "config.json", num_hidden_layers=3)


def lost_shard(model: Path) -> None:
    split_weights(model)
    (model / "model-00002-of-00002.safetensors").unlink()


def swapped_shard(model: Path) -> None:
    split_weights(model)
    shutil.copy(model / "model-00001-of-00002.safetensors", model / "model-00002-of-00002.safetensors")


def broken_index(model: Path) -> None:
    split_weights(model)
    (model / INDEX).write_text('{"weight_map": ')


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (torn, "is torn: it has"),
        (torn_header, "is torn or no safetensors file"),
        (garbage_header, "has no readable header"),
        (empty_weights, "is torn or no safetensors file"),
        (lfs_pointer, "is a pointer of Git LFS"),
        (pickled, r"as pickle \(pytorch_model.bin\), which can run code"),
        (no_weights, "holds no weights"),
        (no_config, "config.json is missing"),
        (adapter, "holds an adapter, not a model"),
        (broken_config, "config.json cannot be read"),
        (remote_code, "needs code that comes with it, which is never run"),
        (quantized, "is quantized"),
        (quantized_without_a_word, "are int8: the model is quantized, and its config.json does not say how"),
        (larger_than_its_weights, r"lack 9 tensors \(model.layers.2.* would start at random"),
        (lost_shard, "1 of 2 shards of the model are missing"),
        (swapped_shard, "does not contain"),
        (broken_index, "is torn"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_refused(model: Path, damage: Callable[[Path], None], words: str) -> None:
    damage(model)
    with pytest.raises(RunError, match=words) as raised:
        check_model(model, Lora())
    assert raised.value.reason is Reason.MODEL_INVALID
    assert raised.value.exit_code is ExitCode.DATA_INVALID
    assert raised.value.hint, "every refusal says what to do"


def test_longest_row_and_positions(tiny_model: Path, model: Path) -> None:
    facts = check_model(tiny_model, Lora())
    assert check_positions(tiny_model, facts, 512) == []
    assert "the longest row has 513 tokens" in check_positions(tiny_model, facts, 513)[0]
    from transformers import GPT2Config

    GPT2Config(n_positions=512).save_pretrained(model)
    with pytest.raises(RunError, match="cannot count further") as raised:
        check_positions(model, facts, 513)
    assert "dpo.maxLength to 512" in str(raised.value.hint)


@pytest.mark.parametrize("family", ["Qwen2", "GPT2", "Mixtral", "Gemma3Text"])
def test_other_families_are_counted_rightly(model: Path, family: str) -> None:
    """Shared embeddings are stored once, experts are stored apart and built as one: both count as they train."""
    import transformers

    sizes = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "num_local_experts": 2, "vocab_size": 384, "head_dim": 8,
        "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1,
    }  # fmt: skip
    config_class = getattr(transformers, f"{family}Config")
    config = config_class(**sizes) if family != "GPT2" else config_class(vocab_size=384, n_embd=32, n_layer=2, n_head=4)
    config.tie_word_embeddings = family != "Mixtral"
    real = transformers.AutoModelForCausalLM.from_config(config)
    (model / WEIGHTS).unlink()
    (model / "generation_config.json").unlink()
    real.save_pretrained(model)
    facts = check_model(model, Lora())
    assert facts.parameters == sum(parameter.numel() for parameter in real.parameters())
    assert facts.lora_modules >= 2
