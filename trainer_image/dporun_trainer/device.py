"""Look at what this process computes on, and refuse what cannot work before anything is loaded."""

import os

import torch

from dporun_api.pod import PRETENDED_GPUS_VARIABLE
from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer.driver import ask_driver, has_kernels, why_no_gpu
from dporun_trainer.errors import RunError
from dporun_trainer.machine import Machine


def this_machine(processes: int = 1, *, gpus: int = 0) -> Machine:
    """Describe what this process computes on.

    Args:
        processes: of this node; each gets a GPU of its own, or a share of the CPU's memory.
        gpus: that this pod was given; 0 takes those that there are, and the CPU when there are none.

    Raises:
        RunError: GPUs were given and torch finds none, or there are fewer than processes, or none of torch's kernels
            runs on them.

    """
    index = int(os.environ.get("LOCAL_RANK", "0"))
    if not torch.cuda.is_available():
        if gpus and os.environ.get(PRETENDED_GPUS_VARIABLE) != "true":
            why, hint = why_unusable(index)
            raise RunError(
                Reason.INVALID_SPEC, f"the pod was given {gpus} GPUs, but torch finds none: {why}", hint=hint
            )
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // processes
        return Machine(cuda=False, bf16=True, memory=memory, name="the CPU")
    if torch.cuda.device_count() < processes:
        raise RunError(
            Reason.INVALID_SPEC,
            f"distributed.processesPerNode is {processes}, but this node has {torch.cuda.device_count()} GPUs",
            hint="Request as many GPUs as processes: resources.gpusPerNode.",
        )
    why, hint = why_unusable(index)
    if why:
        raise RunError(Reason.INVALID_SPEC, why, hint=hint)
    free, total = torch.cuda.mem_get_info(index)
    return Machine(
        cuda=True,
        bf16=torch.cuda.is_bf16_supported(including_emulation=False),
        memory=free,
        total=total,
        name=torch.cuda.get_device_name(index),
        index=index,
    )


def why_unusable(index: int) -> tuple[str, str]:
    """Say why torch cannot compute on a GPU of this pod, and what to do about it; both are empty where it can."""
    if not torch.cuda.is_available():
        major, _, minor = str(torch.version.cuda or "0.0").partition(".")
        return why_no_gpu(ask_driver(), (int(major), int(minor)))
    properties, built_for = torch.cuda.get_device_properties(index), torch.cuda.get_arch_list()
    if has_kernels((properties.major, properties.minor), built_for):
        return "", ""
    return (
        f"{properties.name} has compute capability {properties.major}.{properties.minor}, and torch in this image is "
        f"built for {', '.join(built_for)}",
        "Choose nodes with another GPU (resources.nodeSelector).",
    )
