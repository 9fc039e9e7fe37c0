"""What the condition Fits says of an estimate."""

from typing import Any

import pytest

from dporun_api.memory import GIB, MemoryEstimate
from dporun_api.v1alpha1.reasons import Reason
from dporun_operator.lifecycle.fits import judge
from dporun_testing.builders import a_run

MEMORY = MemoryEstimate(
    weights=15 * GIB,
    adapter=GIB,
    activations=34 * GIB,
    checkpointed_activations=2 * GIB,
    overhead=2 * GIB,
    host=8 * GIB,
)
"""Of 52 GiB on each GPU, or 20."""


def judged(
    resources: dict[str, Any], training: dict[str, Any] | None = None, **container: Any
) -> tuple[bool | None, Reason, str]:
    run = a_run({"resources": resources, "training": training or {}})
    return judge(run.spec, MEMORY, container)


@pytest.mark.parametrize(
    ("gpu", "switch", "fits", "words"),
    [
        ("80Gi", "auto", True, "It fits into 80.0 GiB without gradient checkpointing."),
        ("24Gi", "auto", True, "It fits into 24.0 GiB with gradient checkpointing."),
        ("80Gi", "always", True, "It fits into 80.0 GiB with gradient checkpointing."),
        ("24Gi", "never", False, "Of 24.0 GiB, an estimate may fill 90 %: training may run out of memory."),
        ("20Gi", "auto", False, "Set training.perDeviceBatchSize: 1"),
        ("15Gi", "auto", False, "Set model.quantization: nf4 (4 bits for each weight), or take a GPU with more memory"),
    ],
)
def test_a_process_is_compared_with_its_gpu(gpu: str, switch: str, fits: bool, words: str) -> None:
    found, reason, message = judged({"gpuMemory": gpu}, {"gradientCheckpointing": switch})
    assert found is fits
    assert reason == (Reason.SUFFICIENT_MEMORY if fits else Reason.INSUFFICIENT_MEMORY)
    assert message.startswith(
        "Each GPU needs about 52.0 GiB, or 20.0 GiB with gradient checkpointing (weights 15.0 GiB,"
    )
    assert words in message


def test_gpus_of_which_nobody_knows_are_not_judged() -> None:
    found, reason, message = judged({})
    assert (found, reason) == (None, Reason.GPU_MEMORY_UNKNOWN)
    assert "set resources.gpuMemory" in message


@pytest.mark.parametrize(
    ("container", "fits", "words"),
    [
        ({}, True, "A pod needs about 8.0 GiB of its node's memory."),
        ({"requests": {"memory": "8Gi"}, "limits": {"memory": "8Gi"}}, True, "A pod needs about 8.0 GiB"),
        ({"requests": {"memory": "4Gi"}}, True, "its request is 4Gi: it may be evicted"),
        ({"limits": {"memory": "4Gi"}}, False, "its limit is 4Gi: the kernel may end it"),
    ],
)
def test_a_pod_is_compared_with_its_own_limit(container: dict[str, Any], fits: bool, words: str) -> None:
    found, _, message = judged({"gpusPerNode": 0}, **container)
    assert found is fits
    assert words in message
    assert "GPU" not in message


def test_a_low_limit_outweighs_a_gpu_that_nobody_knows() -> None:
    assert judged({}, limits={"memory": "4Gi"})[0] is False
