"""TRL's fused head against the model's own logits: equal for what it knows, and a run is stopped where they differ."""

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM
from trl import DPOTrainer
from trl.trainer.utils import add_fused_lm_head

from dporun_api.v1alpha1.reasons import Reason
from dporun_testing import families
from dporun_testing.training import a_config, attempt, prepare
from dporun_trainer.errors import RunError
from dporun_trainer.run_folder import RunFolder
from dporun_trainer.training.fused_head import Agreement, agreement, short_row

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])


def judged(model: Any, dtype: torch.dtype) -> Agreement:
    batch = families.random_batch()
    families.spread_logits(model, batch)
    add_fused_lm_head(model)
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")).to(dtype)
    return agreement(adapted.train(), batch)


@DTYPES
@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "cohere", "granitemoehybrid", "gpt_oss"])
def test_the_fused_head_computes_what_the_model_does(family: str, dtype: torch.dtype) -> None:
    found = judged(families.tiny_model(family), dtype)
    assert found.holds, found
    assert found.tokens == 32


@DTYPES
@pytest.mark.parametrize("family", ["bert", "modernbert-decoder", "recurrent_gemma"])
def test_a_head_that_trl_does_not_know_is_told(family: str, dtype: torch.dtype) -> None:
    """BERT transforms before its head, ModernBERT too, RecurrentGemma caps its logits under a name of its own."""
    changes = {"is_decoder": True} if family == "bert" else {}
    found = judged(families.tiny_model(family, **changes), dtype)
    assert found.difference > 5 * found.tolerance


def test_dropout_is_off_while_comparing_and_on_again_afterwards() -> None:
    model = families.tiny_model("llama", attention_dropout=0.5)
    batch = families.random_batch()
    add_fused_lm_head(model)
    assert agreement(model.train(), batch).holds
    assert model.training


@pytest.mark.usefixtures("single_process")
def test_a_model_with_a_nan_stops_before_it_is_trained(model: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(model, broken)
    weights = load_file(broken / "model.safetensors")
    weights["model.norm.weight"][0] = math.nan
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    config = a_config("broken")
    directory = prepare(config, tmp_path, broken)
    with pytest.raises(RunError, match=r"not finite .* before anything is trained") as raised:
        attempt(config, directory)
    assert raised.value.reason is Reason.NON_FINITE_LOSS
    assert not RunFolder(directory).checkpoints.folders()


def test_a_long_row_is_cut_to_what_needs_no_memory() -> None:
    row = {"prompt_ids": [1] * 9000, "chosen_ids": [2] * 9000, "rejected_ids": [3], "ref_chosen_logps": -1.0}
    assert {name: len(ids) for name, ids in short_row(row).items()} == {
        "prompt_ids": 48, "chosen_ids": 16, "rejected_ids": 1,
    }  # fmt: skip


@pytest.mark.usefixtures("single_process")
@pytest.mark.parametrize("precompute", ["always", "never"])
def test_a_run_with_another_head_stops_before_all_else(
    precompute: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scaled(self: Any, *arguments: Any, **named: Any) -> Any:
        output = plain(self, *arguments, **named)
        output.logits = 1.5 * output.logits
        return output

    def never(*_: Any, **_named: Any) -> None:
        pytest.fail("the reference was computed before")

    plain = LlamaForCausalLM.forward
    monkeypatch.setattr(DPOTrainer, "compute_ref_log_probs", never)
    monkeypatch.setattr(LlamaForCausalLM, "forward", scaled)
    config = a_config(precompute, dpo={"precompute_ref_log_probs": precompute})
    directory = prepare(config, tmp_path, model)
    with pytest.raises(RunError, match=r"LlamaForCausalLM computes: over \d+ tokens .* by 0\.0\d+ nats") as raised:
        attempt(config, directory)
    assert raised.value.reason is Reason.MODEL_INVALID
    assert not raised.value.reason.traits.retried
    assert not RunFolder(directory).checkpoints.folders()
