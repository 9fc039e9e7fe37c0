import pytest

from dporun_api.memory import GIB
from dporun_api.run_config import RunConfig
from dporun_api.v1alpha1.reasons import Reason
from dporun_testing.run_folders import a_prepared
from dporun_testing.training import a_config
from dporun_trainer.errors import RunError
from dporun_trainer.inputs.fit import expected_memory, require_gpu_memory

SEVENTY_BILLION = a_prepared().model.model_copy(
    update={"parameters": 70_553_706_496, "lora_parameters": 207_093_760, "hidden_size": 8192, "layers": 80}
)


def on(gpus: int, memory: int | None, precision: str = "auto") -> RunConfig:
    return a_config(topology={"gpus_per_node": gpus, "gpu_memory": memory}, training={"precision": precision})


def test_what_can_never_fit_is_refused_before_a_gpu_is_held() -> None:
    words = r"GPU of 80.0 GiB \(resources.gpuMemory\): the weights alone take 131.4 GiB"
    with pytest.raises(RunError, match=words) as raised:
        require_gpu_memory(on(8, 80 * GIB), SEVENTY_BILLION)
    assert str(raised.value.hint).startswith("Set model.quantization: nf4 (4 bits for each weight), or take a GPU")
    assert (raised.value.reason, raised.value.exit_code) == (Reason.GPU_OUT_OF_MEMORY, 66)


@pytest.mark.parametrize("config", [on(1, 141 * GIB), on(1, None), on(0, 80 * GIB)])
def test_what_may_fit_or_is_not_known_is_left_to_try(config: RunConfig) -> None:
    require_gpu_memory(config, SEVENTY_BILLION)


@pytest.mark.parametrize(("config", "value_bytes"), [(on(1, None), 2), (on(1, None, "fp32"), 4), (on(0, None), 4)])
def test_weights_are_as_wide_as_training_computes(config: RunConfig, value_bytes: int) -> None:
    """Auto is 16 bits on whatever GPU, and 32 on the CPU."""
    assert expected_memory(config, SEVENTY_BILLION).weights == value_bytes * SEVENTY_BILLION.parameters


def test_a_model_of_4_bits_is_estimated_as_such() -> None:
    model = SEVENTY_BILLION.model_copy(update={"quantized_parameters": 68_451_041_280})
    config = a_config(model={"uri": "x", "quantization": "nf4"}, topology={"gpus_per_node": 1, "gpu_memory": 80 * GIB})
    require_gpu_memory(config, model)
    assert expected_memory(config, model).weights < 40 * GIB
