"""Whether the model fits what the run asks for, told before any of that is held."""

from dporun_api.memory import MemoryEstimate, gibibytes
from dporun_api.run_config import RunConfig
from dporun_trainer.machine import Machine
from dporun_trainer.memory import Shape, estimate, require_possible
from dporun_trainer.precision import choose_arithmetic
from dporun_trainer.run_folder.prepared import ModelFacts


def expected_memory(config: RunConfig, model: ModelFacts, longest: int | None = None) -> MemoryEstimate:
    """Estimate what training needs on the GPUs that the run asks for, or on the CPU where it asks for none.

    Args:
        config: of the run.
        model: to be trained.
        longest: tokens of the longest row, where it is known already.

    """
    cuda = config.topology.gpus_per_node > 0
    # Whether the GPU has bfloat16 is not known, and makes no difference: float16 is as large.
    machine = Machine(cuda=cuda, bf16=True, memory=0, name="")
    arithmetic = choose_arithmetic(config.training.precision, machine, config.model.quantization)
    return estimate(config, Shape.of(config, model, longest), arithmetic=arithmetic, cuda=cuda)


def require_gpu_memory(config: RunConfig, model: ModelFacts) -> None:
    """Refuse a model that can never fit on the GPUs, where the user says how much memory these have.

    Raises:
        RunError: weights, adapter and optimizer alone take more.

    """
    memory = config.topology.gpu_memory
    if config.topology.gpus_per_node and memory is not None:
        where = f"a GPU of {gibibytes(memory)} (resources.gpuMemory)"
        require_possible(expected_memory(config, model), memory, where, quantization=config.model.quantization)
