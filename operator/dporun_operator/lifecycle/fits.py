"""Whether the memory that training needs is there: what prepare estimates, against what the run asks for. Pure."""

from dporun_api.advice import after_gpu_out_of_memory
from dporun_api.memory import HEADROOM, MemoryEstimate, gibibytes
from dporun_api.text import percent
from dporun_api.v1alpha1.formats import amount
from dporun_api.v1alpha1.reasons import Reason
from dporun_api.v1alpha1.spec import DPORunSpec
from dporun_api.v1alpha1.status import ConditionType
from dporun_operator.lifecycle.draft import Draft
from dporun_operator.objects.train_job import training_resources
from dporun_operator.settings import Requirements


def record(draft: Draft, memory: MemoryEstimate | None) -> None:
    """Keep the estimate, and say whether training fits."""
    draft.status.memory = memory
    if memory is None:
        draft.reset_condition(ConditionType.FITS)
        return
    resources = training_resources(draft.run, draft.settings, memory)
    draft.set_condition(ConditionType.FITS, *judge(draft.run.spec, memory, resources))


def judge(spec: DPORunSpec, memory: MemoryEstimate, resources: Requirements) -> tuple[bool | None, Reason, str]:
    """Judge whether training fits: status, reason and message of the condition.

    Args:
        spec: what the user asks for.
        memory: that training needs.
        resources: of a training container, defaults included.

    """
    on_gpu, gpu_words = _on_gpu(spec, memory)
    on_host, host_words = _on_host(memory, resources)
    words = " ".join(filter(None, (gpu_words, host_words)))
    if on_gpu is False or not on_host:
        return False, Reason.INSUFFICIENT_MEMORY, words
    if on_gpu is None:
        return None, Reason.GPU_MEMORY_UNKNOWN, words
    return True, Reason.SUFFICIENT_MEMORY, words


def _on_gpu(spec: DPORunSpec, memory: MemoryEstimate) -> tuple[bool | None, str]:
    """Whether a process fits on its GPU; there is nothing to fit where the run asks for none."""
    if spec.resources.gpus_per_node == 0:
        return True, ""
    full, checkpointed = memory.process(checkpointing=False), memory.process(checkpointing=True)
    needs = (
        f"Each GPU needs about {gibibytes(full)}, or {gibibytes(checkpointed)} with gradient checkpointing "
        f"({memory.parts})."
    )
    if spec.resources.gpu_memory is None:
        return None, f"{needs} What a GPU has is not known: set resources.gpuMemory to be told whether that fits."
    available = int(amount(spec.resources.gpu_memory))
    switch = spec.training.gradient_checkpointing
    if switch != "always" and memory.fits(available, checkpointing=False):
        return True, f"{needs} It fits into {gibibytes(available)} without gradient checkpointing."
    if switch != "never" and memory.fits(available, checkpointing=True):
        return True, f"{needs} It fits into {gibibytes(available)} with gradient checkpointing."
    hint = after_gpu_out_of_memory(
        spec.training,
        spec.dpo,
        quantization=spec.model.quantization,
        processes=spec.distributed.nodes * spec.processes_per_node,
        checkpointing=switch != "never",
        memory=memory,
        available=available,
    )
    return False, (
        f"{needs} Of {gibibytes(available)}, an estimate may fill {percent(HEADROOM)}: training may run out of memory. "
        f"{hint}"
    )


def _on_host(memory: MemoryEstimate, resources: Requirements) -> tuple[bool, str]:
    """Whether the pod stays below its own limit; what its node has is for the scheduler to know."""
    needs = f"A pod needs about {gibibytes(memory.host)} of its node's memory"
    limit, request = (resources.get(kind, {}).get("memory") for kind in ("limits", "requests"))
    if limit is not None and amount(limit) < memory.host:
        return False, f"{needs}, and its limit is {limit}: the kernel may end it. Raise resources.limits.memory."
    if request is not None and amount(request) < memory.host:
        return True, f"{needs}, and its request is {request}: it may be evicted. Raise resources.requests.memory."
    return True, f"{needs}."
