"""The CUDA driver of the node, asked directly: what it can do, and why there is no GPU. No torch."""

import ctypes
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_LIBRARY = "libcuda.so.1"
_AMD = Path("/dev/kfd")
"""The device of AMD's compute driver."""

OLDEST = {12: 525, 13: 580}
"""Oldest driver that runs programs of a major version of CUDA (CUDA Toolkit Release Notes, minor version
compatibility)."""

_FAILURES = {
    3: "it is not initialized",
    34: "it is a stub, for building alone",
    100: "it sees no GPU",
    101: "it sees no GPU that it can use",
    802: "the GPUs are not ready: on nodes with NVSwitch the fabric manager must run",
    803: "its library and the kernel's module are of different versions: reboot the node",
    804: "its library is newer than the kernel's module supports on this GPU",
    999: "it does not say why",
}
"""What cuInit's result means (enum cudaError_enum of cuda.h)."""


@dataclass(frozen=True)
class Driver:
    """What a CUDA driver says of itself.

    Attributes:
        cuda: newest CUDA that it supports, as (major, minor).
        status: result of cuInit; 0 is success.
        devices: GPUs that it offers.

    """

    cuda: tuple[int, int]
    status: int
    devices: int


def ask_driver() -> Driver | None:
    """Ask the driver of this node; None where its library is not there."""
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError:
        return None
    version, count = ctypes.c_int(), ctypes.c_int()
    library.cuDriverGetVersion(ctypes.byref(version))
    status = int(library.cuInit(0))
    if status == 0:
        library.cuDeviceGetCount(ctypes.byref(count))
    return Driver((version.value // 1000, version.value % 1000 // 10), status, count.value)


def has_gpu() -> bool:
    """Whether the driver offers a GPU."""
    driver = ask_driver()
    return driver is not None and driver.devices > 0


def why_no_gpu(driver: Driver | None, needed: tuple[int, int], *, amd: bool | None = None) -> tuple[str, str]:
    """Say why torch finds no GPU in a pod that was given some, and what to do about it.

    Args:
        driver: what the node's driver says of itself.
        needed: CUDA that torch was built for. Drivers of the same major version can run it (CUDA's minor version
            compatibility).
        amd: whether the node has AMD's driver; looked up when absent.

    """
    if driver is None and (_AMD.exists() if amd is None else amd):
        return "they are AMD's, and this image is built for NVIDIA's", "Choose nodes with NVIDIA GPUs."
    if driver is None:
        return (
            f"the driver's library {_LIBRARY} is not in the container",
            "Set resources.runtimeClassName (nvidia, where NVIDIA's runtime is not the default), or have the device "
            "plugin mount the driver at /usr/local/nvidia.",
        )
    if driver.cuda[0] < needed[0]:
        return (
            f"the node's driver supports CUDA up to {dotted(driver.cuda)}, and this image needs {dotted(needed)}",
            f"Install driver {OLDEST.get(needed[0], f'for CUDA {needed[0]}')} or newer on the node, or choose other "
            "nodes (resources.nodeSelector).",
        )
    if driver.status:
        meaning = _FAILURES.get(driver.status, "see cuda.h")
        return f"the driver fails with error {driver.status}: {meaning}", "Try nvidia-smi on the node."
    if driver.devices == 0:
        return "the driver offers none to this container", "Look at the node's device plugin, and CUDA_VISIBLE_DEVICES."
    return (
        f"the driver offers {driver.devices}, but torch cannot use them",
        "Run python -c 'import torch; torch.cuda.init()' in the image on that node.",
    )


def has_kernels(capability: tuple[int, int], architectures: Iterable[str]) -> bool:
    """Whether code was built for a GPU of a compute capability.

    Machine code (``sm_86``) runs on the same major version from its minor version on, that of an accelerated variant
    (``sm_90a``) on its own version alone; PTX (``compute_90``) on everything newer (CUDA C++ Programming Guide, Binary
    and PTX compatibility).
    """
    for architecture in architectures:
        kind, _, name = architecture.partition("_")
        digits = name.rstrip("af")
        built = int(digits[:-1]), int(digits[-1])
        if kind == "compute":
            fits = capability >= built
        elif name.endswith("a"):
            fits = capability == built
        else:
            fits = capability[0] == built[0] and capability[1] >= built[1]
        if fits:
            return True
    return False


def dotted(version: tuple[int, int]) -> str:
    """A version of CUDA as people write it."""
    return ".".join(map(str, version))
