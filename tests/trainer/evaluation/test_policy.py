"""The two models: loaded as they were trained, or an error that says why not."""

from pathlib import Path

import pytest
import torch

from dporun_api.v1alpha1.reasons import Reason
from dporun_testing.adapters import save_random_adapter
from dporun_testing.tiny_model import save_tiny_model
from dporun_trainer import architectures
from dporun_trainer.errors import RunError
from dporun_trainer.evaluation.policy import load_model, load_policy


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_the_adapter_computes_as_it_was_trained(tmp_path: Path, precision: str, dtype: torch.dtype) -> None:
    """PEFT would keep it in float32 and cast in every layer; DeepSpeed trains it in the model's own arithmetic."""
    base = save_tiny_model(tmp_path / "base")
    policy = load_policy(save_random_adapter(base, tmp_path / "adapter"), precision=precision)  # type: ignore[arg-type]
    assert {weight.dtype for name, weight in policy.model.named_parameters() if "lora_" in name} == {dtype}


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), Reason.GPU_OUT_OF_MEMORY),
        (torch.AcceleratorError("CUDA error: out of memory", 2), Reason.GPU_OUT_OF_MEMORY),
        (torch.AcceleratorError("CUDA error: uncorrectable ECC error encountered", 214), Reason.GPU_FAULT),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), Reason.GPU_OUT_OF_MEMORY),
        (RuntimeError("the header is torn"), Reason.MODEL_INVALID),
    ],
)
def test_a_gpu_that_fails_is_no_bad_model(error: Exception, reason: Reason, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(architectures, "load_model", load)
    with pytest.raises(RunError, match="cannot load the model somewhere") as caught:
        load_model("somewhere", "auto")
    assert caught.value.reason is reason
    assert str(error) in caught.value.message
    assert caught.value.hint or reason is Reason.MODEL_INVALID
