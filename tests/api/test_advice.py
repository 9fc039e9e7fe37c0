"""What a run is told to change after a failure."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dporun_api.advice import after_gpu_out_of_memory, hint, smaller_batch
from dporun_api.memory import GIB, MemoryEstimate
from dporun_api.run_config import Dpo, Training
from dporun_api.v1alpha1.reasons import FAILURES, Reason


@given(st.integers(1, 256), st.integers(1, 64))
def test_a_smaller_batch_keeps_the_effective_batch(batch: int, accumulation: int) -> None:
    found = smaller_batch(Training(per_device_batch_size=batch, gradient_accumulation_steps=accumulation))
    assert (found is None) == (batch == 1)
    if found is not None:
        assert found.size * found.accumulation == batch * accumulation
        assert 1 <= found.size <= batch // 2


def test_after_a_gpu_ran_out_of_memory() -> None:
    def advice(batch: int, *, checkpointing: bool) -> str:
        training = Training(per_device_batch_size=batch, gradient_accumulation_steps=4)
        return after_gpu_out_of_memory(training, Dpo(), quantization=None, processes=2, checkpointing=checkpointing)

    half = advice(8, checkpointing=False)
    assert "perDeviceBatchSize: 4" in half
    assert "gradientAccumulationSteps: 8" in half
    assert "stays 64" in half
    assert "gradientCheckpointing: always" in advice(1, checkpointing=False)
    assert "gradientCheckpointing" not in advice(1, checkpointing=True)
    assert advice(1, checkpointing=True).endswith(
        "lower dpo.maxLength (1024), set model.quantization: nf4 (4 bits for each weight), or take a GPU with more "
        "memory (resources.nodeSelector)."
    )


def test_what_can_never_fit_is_said_instead_of_what_cannot_help() -> None:
    memory = MemoryEstimate(
        weights=131 * GIB, adapter=GIB, activations=0, checkpointed_activations=0, overhead=GIB, host=GIB
    )
    text = after_gpu_out_of_memory(
        Training(), Dpo(), quantization=None, processes=1, checkpointing=False, memory=memory, available=80 * GIB
    )
    assert text == (
        "Set model.quantization: nf4 (4 bits for each weight), or take a GPU with more memory "
        "(resources.nodeSelector). The weights alone take 131.0 GiB of memory and the adapter with its optimizer "
        "1.0 GiB, where 80.0 GiB are there."
    )


def test_with_4_bits_only_a_larger_gpu_is_left() -> None:
    training = Training(per_device_batch_size=1)
    text = after_gpu_out_of_memory(training, Dpo(), quantization="nf4", processes=1, checkpointing=True)
    assert text.endswith("lower dpo.maxLength (1024), or take a GPU with more memory (resources.nodeSelector).")


def test_an_odd_batch_is_divided_exactly() -> None:
    training = Training(per_device_batch_size=5, gradient_accumulation_steps=1)
    text = hint(Reason.GPU_OUT_OF_MEMORY, training, Dpo(), quantization=None, processes=1)
    assert text is not None
    assert "perDeviceBatchSize: 1 and training.gradientAccumulationSteps: 5;" in text


@pytest.mark.parametrize("reason", FAILURES)
def test_a_hint_says_what_to_do(reason: Reason) -> None:
    text = hint(reason, Training(), Dpo(), quantization=None, processes=1)
    assert text is None or text.endswith(".")
