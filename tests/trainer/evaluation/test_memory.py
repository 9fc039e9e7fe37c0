"""What fits into a GPU's memory, and what did not, in whatever words."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml

from dporun_trainer.evaluation.memory import answers_that_fit, attempt, widths

CASES = yaml.safe_load((Path(__file__).parent / "cases/answers_that_fit.yaml").read_text())

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


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["what"])
def test_as_many_answers_at_a_time_as_fit(case: dict[str, Any]) -> None:
    needed = widths(SimpleNamespace(**case["config"]), case["item"]).bytes_per_token
    assert needed == case["bytes_per_token"]
    assert answers_that_fit(int(case["free"] * 2**30), needed, case["tokens"]) == case["answers"]
