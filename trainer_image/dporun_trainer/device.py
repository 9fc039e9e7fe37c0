"""Look at what this process computes on, and refuse what cannot work before anything is loaded."""

import os

import torch

from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer.errors import RunError
from dporun_trainer.machine import Machine


def this_machine(processes: int = 1) -> Machine:
    """Describe what this process computes on.

    Args:
        processes: of this node; each gets a GPU of its own, or a share of the CPU's memory.

    Raises:
        RunError: the node has GPUs, but fewer than processes.

    """
    if not torch.cuda.is_available():
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // processes
        return Machine(cuda=False, bf16=True, memory=memory, name="the CPU")
    if torch.cuda.device_count() < processes:
        raise RunError(
            Reason.INVALID_SPEC,
            f"distributed.processesPerNode is {processes}, but this node has {torch.cuda.device_count()} GPUs",
            hint="Request as many GPUs as processes: resources.gpusPerNode.",
        )
    properties = torch.cuda.get_device_properties(int(os.environ.get("LOCAL_RANK", "0")))
    return Machine(
        cuda=True,
        bf16=torch.cuda.is_bf16_supported(including_emulation=False),
        memory=properties.total_memory,
        name=properties.name,
    )
