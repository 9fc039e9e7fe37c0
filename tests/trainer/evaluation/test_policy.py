from pathlib import Path

import pytest
import torch

from dporun_testing.adapters import save_random_adapter
from dporun_testing.tiny_model import save_tiny_model
from dporun_trainer.evaluation.policy import load_policy


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_the_adapter_computes_as_it_was_trained(tmp_path: Path, precision: str, dtype: torch.dtype) -> None:
    """PEFT would keep it in float32 and cast in every layer; DeepSpeed trains it in the model's own arithmetic."""
    base = save_tiny_model(tmp_path / "base")
    policy = load_policy(save_random_adapter(base, tmp_path / "adapter"), precision=precision)  # type: ignore[arg-type]
    assert {weight.dtype for name, weight in policy.model.named_parameters() if "lora_" in name} == {dtype}
