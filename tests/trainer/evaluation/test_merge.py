"""A merged model is the adapted one, whole and verified, or not there."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraModel
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import (
    AutoImageProcessor,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    PreTrainedModel,
)

from dporun_api.files import read_json
from dporun_api.v1alpha1.reasons import Reason
from dporun_testing.adapters import save_random_adapter
from dporun_testing.multimodal import Family, save_tiny_multimodal
from dporun_testing.tiny_model import save_tiny_model
from dporun_trainer.errors import RunError
from dporun_trainer.evaluation import merge as merging
from dporun_trainer.evaluation.merge import Merge, UnfaithfulMergeError, is_merged, merge
from dporun_trainer.evaluation.policy import load_model, load_policy

PROMPTS = ["what is apple", "please answer the question", "one two three", "good bad yes no"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return save_tiny_model(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random_adapter(base, tmp_path_factory.mktemp("adapter"))


@pytest.fixture
def output(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "run/merged"
    assert not list(tmp_path.rglob("*.partial")), "nothing half done may stay"


def logits(model: Any, tokenizer: Any) -> torch.Tensor:
    with torch.no_grad():
        return torch.cat([model(**tokenizer(text, return_tensors="pt")).logits[0] for text in PROMPTS])


def test_the_merged_model_gives_the_adapters_logits(base: Path, adapter: Path, output: Path) -> None:
    result = merge(adapter, output, prompts=PROMPTS)
    policy = load_policy(adapter)
    merged = AutoModelForCausalLM.from_pretrained(output)
    tokenizer = AutoTokenizer.from_pretrained(output)
    difference = (logits(merged, tokenizer) - logits(policy.model, policy.tokenizer)).abs().max()
    assert float(difference) == pytest.approx(result.max_abs_difference, abs=1e-5)
    assert difference < 1e-5
    assert result.effect > 0.1, "an adapter that does nothing would prove nothing"
    assert (result.prompts, result.dtype, result.base) == (4, "float32", str(base.resolve()))
    assert tokenizer.chat_template == policy.tokenizer.chat_template
    assert (output / "generation_config.json").is_file()
    assert json.loads((output / "merge.json").read_text())["max_abs_difference"] == result.max_abs_difference


@pytest.mark.parametrize("family", ["gemma3", "qwen3_5"])
def test_one_forward_pass_compares_all_prompts(family: Family, tmp_path: Path) -> None:
    """Each pass reads all weights. What is padded changes nothing, in models with windows or a state either."""
    folder = save_tiny_multimodal(tmp_path / "base", family)
    model, tokenizer = load_model(folder, "auto").eval(), AutoTokenizer.from_pretrained(folder)
    passes = []
    model.register_forward_hook(lambda *_: passes.append(1))
    found = merging._logits(model, [torch.tensor(tokenizer(text)["input_ids"]) for text in PROMPTS])
    assert len(passes) == 1
    torch.testing.assert_close(found, logits(model, tokenizer).float())


def test_a_merged_model_is_evaluated_with_the_base_it_records(base: Path, adapter: Path, output: Path) -> None:
    merge(adapter, output, prompts=PROMPTS)
    policy = load_policy(output)
    assert policy.reference is not None
    expected = AutoModelForCausalLM.from_pretrained(base)
    assert torch.equal(logits(policy.reference, policy.tokenizer), logits(expected, policy.tokenizer))


@pytest.mark.parametrize("family", ["gemma3", "qwen3_5", "qwen2_5_vl"])
def test_a_merged_multimodal_model_reads_images_as_before(family: Family, tmp_path: Path, output: Path) -> None:
    """It is of the base's class, in its names, with its processor; only weights of the language model differ."""
    whole = save_tiny_multimodal(tmp_path / "base", family)
    adapter = save_random_adapter(whole, tmp_path / "adapter")
    result = merge(adapter, output, prompts=PROMPTS)
    assert result.effect > 0.1 > 100 * result.difference

    before, after = (load_file(folder / "model.safetensors") for folder in (whole, output))
    assert before.keys() == after.keys()
    changed = [name for name in after if not torch.equal(before[name], after[name])]
    assert len(changed) * 2 == len(load_file(adapter / "adapter_model.safetensors"))
    assert not [name for name in changed if "vis" in name or "layers" not in name]

    merged = AutoModelForImageTextToText.from_pretrained(output)
    assert type(merged).__name__ == read_json(whole / "config.json")["architectures"][0]
    policy = load_policy(adapter)
    torch.testing.assert_close(logits(merged, policy.tokenizer), logits(policy.model, policy.tokenizer))

    for name in ("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json"):
        assert (output / name).is_file() == (whole / name).is_file()
    assert AutoImageProcessor.from_pretrained(output).to_dict() == AutoImageProcessor.from_pretrained(whole).to_dict()
    if family == "gemma3":  # the processors of Qwen read video as well, which needs torchvision
        image = Image.new("RGB", (20, 20), (200, 30, 30))
        inputs = AutoProcessor.from_pretrained(output)(text="what is <boi>", images=image, return_tensors="pt")
        blank = inputs | {"pixel_values": torch.zeros_like(inputs["pixel_values"])}
        with torch.no_grad():
            assert not torch.equal(merged(**inputs).logits, merged(**blank).logits)
            torch.testing.assert_close(merged(**inputs).logits, policy.model(**inputs).logits)


def test_the_tokenizer_is_the_bases_file_by_file(base: Path, tmp_path: Path, output: Path) -> None:
    """With every chat template, and without the padding token that training takes where there is none."""
    several = Path(shutil.copytree(base, tmp_path / "several"))
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.chat_template = {"default": tokenizer.chat_template, "tool_use": "{{ tools }}", "rag": "{{ documents }}"}
    tokenizer.pad_token = None
    tokenizer.save_pretrained(several)
    adapter = save_random_adapter(several, tmp_path / "adapter")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (adapter / name).unlink()  # as an adapter that comes without
    merge(adapter, output, prompts=PROMPTS)
    assert AutoTokenizer.from_pretrained(output).chat_template == tokenizer.chat_template
    assert AutoTokenizer.from_pretrained(output).pad_token is None
    for name in ("tokenizer.json", "tokenizer_config.json", "additional_chat_templates/rag.jinja"):
        assert (output / name).read_bytes() == (several / name).read_bytes()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_bases_own_dtype_is_kept(base: Path, tmp_path: Path, output: Path, dtype: torch.dtype) -> None:
    small = tmp_path / "small"
    AutoModelForCausalLM.from_pretrained(base, dtype=dtype).save_pretrained(small)
    AutoTokenizer.from_pretrained(base).save_pretrained(small)
    result = merge(save_random_adapter(small, tmp_path / "adapter"), output, prompts=PROMPTS)
    assert AutoModelForCausalLM.from_pretrained(output, dtype="auto").dtype is dtype
    assert 0 < result.difference < result.tolerance < result.effect


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_merge_that_leaves_the_adapter_out_is_refused(
    base: Path, tmp_path: Path, output: Path, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    stored = tmp_path / "base"
    AutoModelForCausalLM.from_pretrained(base, dtype=dtype).save_pretrained(stored)
    AutoTokenizer.from_pretrained(base).save_pretrained(stored)
    adapter = save_random_adapter(stored, tmp_path / "adapter")
    monkeypatch.setattr(LoraModel, "merge_and_unload", lambda self, **_: self.unload())
    with pytest.raises(UnfaithfulMergeError, match=r"not the adapted one: .* and 0% of what the adapter") as caught:
        merge(adapter, output, prompts=PROMPTS)
    assert "final/ is intact" in str(caught.value.hint)
    assert not caught.value.reason.traits.retried
    assert not output.exists()


def test_a_gentle_adapter_of_a_deep_model_survives_rounding(tmp_path: Path, output: Path) -> None:
    """In bf16 the rounding of 32 layers is more than half of what this adapter does, and does not hide it."""
    deep = save_tiny_model(tmp_path / "full", hidden_size=256, layers=32)
    AutoModelForCausalLM.from_pretrained(deep, dtype=torch.bfloat16).save_pretrained(tmp_path / "base")
    AutoTokenizer.from_pretrained(deep).save_pretrained(tmp_path / "base")
    adapter = save_random_adapter(tmp_path / "base", tmp_path / "adapter", scale=0.0012)
    result = merge(adapter, output, prompts=PROMPTS)
    assert result.effect / 2 < result.difference < result.tolerance
    assert result.kept == pytest.approx(1, abs=0.25)


def test_weights_damaged_on_the_way_to_the_disk_are_noticed(
    adapter: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = PreTrainedModel.save_pretrained

    def damaged(self: Any, *arguments: Any, **options: Any) -> None:
        with torch.no_grad():
            self.get_output_embeddings().weight[7, 3] += 1.0
        save(self, *arguments, **options)

    monkeypatch.setattr(PreTrainedModel, "save_pretrained", damaged)
    with pytest.raises(RunError, match="not the adapted one"):
        merge(adapter, output, prompts=PROMPTS)
    assert not output.exists()


@pytest.mark.parametrize(
    ("difference", "effect", "kept", "faithful"),
    [
        (1e-7, 0.1, 1.0, True),
        (2e-5, 0.1, 1.0, False),  # beyond rounding
        (9e-6, 1.2e-5, 0.2, False),  # within rounding, but the base and not the adapted model
        (9e-6, 1.2e-5, 2.0, False),  # merged twice
        (9e-6, 1.2e-5, 0.9, True),
        (9e-6, 9e-6, 0.2, True),  # an adapter too weak to tell apart
        (float("nan"), 0.1, float("nan"), False),
    ],
)
def test_what_counts_as_faithful(difference: float, effect: float, kept: float, faithful: bool) -> None:
    assert Merge("base", "0" * 64, "float32", 4, 0.0, difference, effect, kept, 1e-5).faithful is faithful


def test_an_adapter_that_is_not_a_number_is_an_error(base: Path, tmp_path: Path, output: Path) -> None:
    broken = save_random_adapter(base, tmp_path / "adapter", scale=float("inf"))
    with pytest.raises(RunError) as caught:
        merge(broken, output, prompts=PROMPTS)
    assert caught.value.reason in {Reason.NON_FINITE_LOSS, Reason.TRAINER_ERROR}
    assert not output.exists()


def test_large_models_are_sharded(adapter: Path, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merging, "_MAX_SHARD_SIZE", "50KB")
    merge(adapter, output, prompts=PROMPTS)
    assert len(list(output.glob("model-*-of-*.safetensors"))) > 1
    assert (output / "model.safetensors.index.json").is_file()


def test_an_earlier_merge_is_replaced_and_another_folder_is_not(base: Path, adapter: Path, output: Path) -> None:
    other = save_random_adapter(base, output.parent / "other", seed=9)
    merge(other, output, prompts=PROMPTS)
    assert is_merged(output, other)
    assert not is_merged(output, adapter)
    merge(adapter, output, prompts=PROMPTS)
    assert is_merged(output, adapter)
    precious = output.parent / "precious"
    precious.mkdir()
    (precious / "file").touch()
    with pytest.raises(RunError, match="is not empty"):
        merge(adapter, precious, prompts=PROMPTS)
    assert (precious / "file").exists()


def test_what_an_interrupted_merge_left_is_swept_away(adapter: Path, output: Path) -> None:
    left = output.with_name(".merged.partial")
    left.mkdir(parents=True)
    (left / "model-00009-of-00009.safetensors").write_bytes(b"torn")
    merge(adapter, output, prompts=PROMPTS)
    assert [path.name for path in output.glob("*.safetensors")] == ["model.safetensors"]


def test_a_lack_of_room_is_noticed_before_anything_is_written(
    adapter: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(output.parent.parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(RunError, match=r"the merged model needs \d.* KiB, and .* has 1000 B free") as caught:
        merge(adapter, output, prompts=PROMPTS)
    assert caught.value.reason is Reason.DISK_FULL


def test_a_disk_that_fills_up_while_writing_leaves_nothing_half(
    adapter: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_self: Any, folder: Path, **_: Any) -> None:
        (folder / "model.safetensors").write_bytes(b"half")
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(PreTrainedModel, "save_pretrained", full)
    with pytest.raises(RunError, match="no space left on the volume") as caught:
        merge(adapter, output, prompts=PROMPTS)
    assert caught.value.reason is Reason.DISK_FULL
    assert not output.exists()


def test_a_sampling_config_is_made_valid(base: Path, tmp_path: Path, output: Path) -> None:
    """transformers refuses to save the base's own."""
    odd = Path(shutil.copytree(base, tmp_path / "odd"))
    config = json.loads((odd / "generation_config.json").read_text())
    (odd / "generation_config.json").write_text(json.dumps(config | {"temperature": 0.6, "do_sample": False}))
    merge(save_random_adapter(odd, tmp_path / "adapter"), output, prompts=PROMPTS)
    saved = json.loads((output / "generation_config.json").read_text())
    assert (saved["temperature"], saved["do_sample"]) == (0.6, True)


def test_only_adapters_can_be_merged(base: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is a whole model"):
        merge(base, tmp_path / "merged", prompts=PROMPTS)
    with pytest.raises(RunError, match="is not a folder"):
        merge(tmp_path / "nowhere", tmp_path / "merged", prompts=PROMPTS)
