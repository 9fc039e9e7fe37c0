"""``gpus``: say which GPUs this pod sees, and whether a run can train on them; why not, and what to do about it."""

import argparse
import os
from collections.abc import Iterator

import torch

from dporun_api.document import Document
from dporun_api.pod import NODE_NAME_VARIABLE, ExitCode
from dporun_trainer import nvml
from dporun_trainer.device import why_unusable
from dporun_trainer.driver import ask_driver, dotted


class SeenGpu(Document):
    """A GPU that torch sees."""

    index: int
    name: str
    capability: str
    """Compute capability, as MAJOR.MINOR."""
    memory_bytes: int
    free_bytes: int
    """What nobody holds."""


class GpuReport(Document):
    """What a pod sees of its node's GPUs, and whether it can train on them."""

    node: str | None = None
    torch: str
    cuda: str | None = None
    """That torch was built for; drivers for its major version or a newer one can run it."""
    architectures: tuple[str, ...]
    """For which torch has kernels; it does not say where there is no GPU."""
    driver: str | None = None
    """Version of the driver; absent where NVML is not there."""
    driver_cuda: str | None = None
    """Newest CUDA that the driver supports; absent where the container has no driver."""
    gpus: tuple[SeenGpu, ...]
    usable: bool
    why: str | None = None
    """Why a run cannot train on them."""
    hint: str | None = None
    """What to do about it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit code: 0 when a run can train on every GPU, and there is one."""
    report = look()
    print(report.to_json(indent=2, exclude_none=True) if arguments.json else "\n".join(describe(report)))
    return ExitCode.OK if report.usable else ExitCode.ERROR


def look() -> GpuReport:
    """Look at the GPUs as a training process does."""
    driver, count = ask_driver(), torch.cuda.device_count() if torch.cuda.is_available() else 0
    problems = (why_unusable(index) for index in range(max(count, 1)))
    why, hint = next((problem for problem in problems if problem[0]), ("", ""))
    return GpuReport(
        node=os.environ.get(NODE_NAME_VARIABLE),
        torch=torch.__version__,
        cuda=torch.version.cuda,
        architectures=tuple(torch.cuda.get_arch_list()),
        driver=nvml.driver_version(),
        driver_cuda=None if driver is None else dotted(driver.cuda),
        gpus=tuple(_seen(index) for index in range(count)),
        usable=not why,
        why=why or None,
        hint=hint or None,
    )


def _seen(index: int) -> SeenGpu:
    properties = torch.cuda.get_device_properties(index)
    free, total = torch.cuda.mem_get_info(index)
    capability = f"{properties.major}.{properties.minor}"
    return SeenGpu(index=index, name=properties.name, capability=capability, memory_bytes=total, free_bytes=free)


def describe(report: GpuReport) -> Iterator[str]:
    """Say it in lines for people."""
    supports = f"supports CUDA up to {report.driver_cuda}" if report.driver_cuda else "not in this container"
    yield f"driver   {' '.join(filter(None, [report.driver, supports]))}"
    kernels = f", with kernels for {', '.join(report.architectures)}" if report.architectures else ""
    yield f"torch    {report.torch}, built for CUDA {report.cuda}{kernels}"
    for gpu in report.gpus:
        memory = f"{gpu.memory_bytes / 2**30:.1f} GiB, {gpu.free_bytes / 2**30:.1f} of it free"
        yield f"GPU {gpu.index}    {gpu.name}, compute capability {gpu.capability}, {memory}"
    count = len(report.gpus)
    can = f"a run can train on {'this GPU' if count == 1 else f'these {count} GPUs'}"
    yield f"verdict  {can}" if report.usable else f"verdict  no run can train here: {report.why}"
    if report.hint:
        yield f"         {report.hint}"
