"""What did not fit into a GPU's memory, in whatever words."""

from collections.abc import Sequence

import pytest
import torch

from dporun_trainer.evaluation.memory import attempt

OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    torch.AcceleratorError(
        "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported at some other API call", 2
    ),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("Triton Error [CUDA]: out of memory"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: str(error)[:40])
def test_out_of_memory_in_all_its_words_is_no_result(error: Exception) -> None:
    def work(_: Sequence[int]) -> list[int]:
        raise error

    assert attempt(work, [1]) is None


@pytest.mark.parametrize(
    "error",
    [RuntimeError("CUDA error: uncorrectable ECC error encountered"), RuntimeError("shapes"), ZeroDivisionError()],
    ids=repr,
)
def test_every_other_error_is_passed_on(error: Exception) -> None:
    def work(_: Sequence[int]) -> list[int]:
        raise error

    with pytest.raises(type(error)) as caught:
        attempt(work, [1])
    assert caught.value is error
