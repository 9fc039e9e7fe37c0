"""The driver is asked through a library of its name, compiled here: what it answers is what a real one does."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dporun_trainer.driver import OLDEST, Driver, has_kernels, why_no_gpu

SOURCE = """
int cuDriverGetVersion(int *version) { *version = 12040; return 0; }
int cuInit(unsigned flags) { return STATUS; }
int cuDeviceGetCount(int *count) { *count = 2; return 0; }
"""
ASK = "from dporun_trainer.driver import ask_driver, has_gpu; print(ask_driver(), has_gpu())"


def asked(folder: Path) -> str:
    environment = os.environ | {"LD_LIBRARY_PATH": str(folder)}
    return subprocess.check_output([sys.executable, "-c", ASK], env=environment, text=True).strip()


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (0, "Driver(cuda=(12, 4), status=0, devices=2) True"),
        (802, "Driver(cuda=(12, 4), status=802, devices=0) False"),
    ],
)
def test_a_driver_is_asked(tmp_path: Path, status: int, answer: str) -> None:
    (tmp_path / "cuda.c").write_text(SOURCE)
    library = tmp_path / "libcuda.so.1"
    subprocess.run(["cc", "-shared", "-fPIC", f"-DSTATUS={status}", "-o", library, tmp_path / "cuda.c"], check=True)
    assert asked(tmp_path) == answer


def test_something_that_is_no_library_is_no_driver(tmp_path: Path) -> None:
    (tmp_path / "libcuda.so.1").write_text("not a library")
    assert asked(tmp_path) == "None False"


@pytest.mark.parametrize(
    ("driver", "amd", "why", "hint"),
    [
        (None, False, "the driver's library libcuda.so.1 is not in the container", "runtimeClassName"),
        (None, True, "they are AMD's", "nodes with NVIDIA GPUs"),
        (Driver((12, 4), 0, 8), False, "supports CUDA up to 12.4, and this image needs 13.2", "driver 580 or newer"),
        (Driver((13, 0), 802, 0), False, "error 802: the GPUs are not ready", "nvidia-smi"),
        (Driver((13, 0), 4242, 0), False, "error 4242", "nvidia-smi"),
        (Driver((13, 0), 0, 0), False, "offers none to this container", "device plugin"),
        (Driver((13, 0), 0, 8), False, "the driver offers 8, but torch cannot use them", "torch.cuda.init"),
    ],
)
def test_why_there_is_no_gpu(driver: Driver | None, amd: bool, why: str, hint: str) -> None:
    said, advice = why_no_gpu(driver, (13, 2), amd=amd)
    assert why in said
    assert hint in advice


WHEEL = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"]
"""That of torch 2.15 on PyPI."""


def test_the_requirements_are_those_of_the_installed_torch() -> None:
    """README.md and docs/gpus.md say what a node needs; torch decides it."""
    import torch

    root = Path(__file__).parents[2]
    readme, docs = ((root / name).read_text() for name in ("README.md", "docs/gpus.md"))
    major = int(str(torch.version.cuda).partition(".")[0])
    release = ".".join(torch.__version__.split(".")[:2])
    assert torch.cuda.get_arch_list() in (WHEEL, [])  # empty where torch is built without CUDA
    assert f"a driver for CUDA {major} ({OLDEST[major]} or newer)" in readme
    assert f"for CUDA {major}, that is {OLDEST[major]} or newer" in docs
    assert f"the image's torch ({release}) has no kernels for it" in docs
    (listed,) = re.findall(r"GPU \| NVIDIA, compute capability ([^:]+):", docs)
    named = re.findall(r"(\d+)\.(\d|x)", listed)
    known = [(major, minor) for major in range(5, 14) for minor in range(10)]
    said = {(a, b) for a, b in known if (str(a), str(b)) in named or (str(a), "x") in named}
    assert said <= {capability for capability in known if has_kernels(capability, WHEEL)}
    assert {major for major, _ in said} == {built // 10 for built in (int(name[3:]) for name in WHEEL)}


@pytest.mark.parametrize(
    ("gpu", "capability", "supported"),
    [
        ("V100", (7, 0), False),
        ("T4", (7, 5), True),
        ("A100", (8, 0), True),
        ("L4", (8, 9), True),
        ("H100", (9, 0), True),
        ("B200", (10, 0), True),
        ("B300", (10, 3), True),
        ("RTX 5090", (12, 0), True),
        ("of tomorrow", (13, 0), False),
    ],
)
def test_which_gpus_torch_has_kernels_for(gpu: str, capability: tuple[int, int], supported: bool) -> None:
    assert has_kernels(capability, WHEEL) is supported, gpu


def test_ptx_and_accelerated_variants() -> None:
    assert has_kernels((13, 0), ["compute_90"])
    assert not has_kernels((8, 0), ["compute_90"])
    assert has_kernels((9, 0), ["sm_90a"])
    assert not has_kernels((10, 0), ["sm_90a"])
