"""Words of CUDA, cuBLAS, Triton and NCCL, as they were seen in the wild, and what the run is told."""

import pytest

from dporun_api.results import Outcome, OutcomeState
from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer.errors import RunError
from dporun_trainer.gpu_errors import GpuFailure, located, recognise, tells

NCCL_OUT_OF_MEMORY = """NCCL error in: NCCLUtils.cpp:94, unhandled cuda error, NCCL version 2.30.7
ncclUnhandledCudaError: Call to CUDA function failed.
Last error:
Failed to CUDA calloc async 608 bytes"""
WATCHDOG = (
    "[rank{rank}]:[E321 02:07:08.408271257 ProcessGroupNCCL.cpp:607] [Rank {rank}] Watchdog caught collective "
    "operation timeout: WorkNCCL(SeqNum=1580, OpType=ALLREDUCE, NumelIn=466119168, NumelOut=466119168, "
    "Timeout(ms)=600000) ran for 600060 milliseconds before timing out."
)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("CUDA out of memory. Tried to allocate 2.00 GiB.", Reason.GPU_OUT_OF_MEMORY),
        ("CUDA error: out of memory", Reason.GPU_OUT_OF_MEMORY),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", Reason.GPU_OUT_OF_MEMORY),
        ("Triton Error [CUDA]: out of memory", Reason.GPU_OUT_OF_MEMORY),
        ("node:1:2 [0] include/alloc.h:178 NCCL WARN Cuda failure 2 'out of memory'", Reason.GPU_OUT_OF_MEMORY),
        ("Error out of memory at line 380 in file /src/csrc/ops.cu", Reason.GPU_OUT_OF_MEMORY),
        (NCCL_OUT_OF_MEMORY, Reason.GPU_OUT_OF_MEMORY),
        ("CUDA error: no kernel image is available for execution on the device", Reason.INVALID_SPEC),
        ("The NVIDIA driver on your system is too old (found version 12040).", Reason.INVALID_SPEC),
        ("CUDA driver version is insufficient for CUDA runtime version", Reason.INVALID_SPEC),
        ("CUDA error: uncorrectable ECC error encountered", Reason.GPU_FAULT),
        ("CUDA error: unspecified launch failure", Reason.GPU_FAULT),
        ("Unable to determine the device handle for GPU 0000:1B:00.0: GPU is lost.", Reason.GPU_FAULT),
        ("CUDA error: system not yet initialized", Reason.GPU_FAULT),
        ("CUDA error: CUDA-capable device(s) is/are busy or unavailable", Reason.GPU_FAULT),
        (WATCHDOG.format(rank=3), Reason.RENDEZVOUS),
    ],
)
def test_what_is_said_and_what_it_means(said: str, reason: Reason) -> None:
    found = recognise(said)
    assert found is not None
    assert found.reason is reason
    assert any(tells(line) for line in said.splitlines())
    assert found.hint or reason is Reason.GPU_OUT_OF_MEMORY, "what to do after that depends on the run's batch"


@pytest.mark.parametrize(
    "said",
    [
        "CUDA error: device-side assert triggered",
        "ValueError: row 7 says that the GPU is lost",
        "java.lang.OutOfMemoryError: Java heap space",
        "RuntimeError: mat1 and mat2 shapes cannot be multiplied",
        "NCCL INFO Channel 00 : 0[1020] -> 2[1040] via P2P/CUMEM",
        "",
    ],
)
def test_what_says_nothing_of_a_failing_gpu(said: str) -> None:
    assert recognise(said) is None
    assert not tells(said)


def test_a_broken_gpu_tells_more_than_what_followed_from_it() -> None:
    """Its rank aborts; the others wait for it, and time out."""
    said = [
        WATCHDOG.format(rank=0),
        "[rank2]: torch.AcceleratorError: CUDA error: uncorrectable ECC error encountered",
        WATCHDOG.format(rank=1),
    ]
    found = recognise("\n".join(said))
    assert found == GpuFailure(Reason.GPU_FAULT, f"a GPU is broken: {said[1]}", found.hint if found else None, rank=2)


def test_an_xid_is_named() -> None:
    found = recognise("[ 12.3] NVRM: Xid (PCI:0000:3b:00): 79, pid=1234, GPU has fallen off the bus.")
    assert found is not None
    assert found.message.startswith("a GPU is broken (Xid 79): ")


def test_a_timeout_names_the_collective_and_who_waited() -> None:
    """Rank 2 is not among them, so it is the one to look at."""
    found = recognise("\n".join(WATCHDOG.format(rank=rank) for rank in (3, 0, 1)))
    assert found is not None
    assert found.message == "training processes 0, 1, 3 waited 600 s in ALLREDUCE for the others"


@pytest.mark.parametrize(
    ("reason", "node", "evidence", "said"),
    [
        (Reason.GPU_FAULT, "gpu-7", "GPU 1: Xid 48", "a GPU is broken (node gpu-7; GPU 1: Xid 48)"),
        (Reason.GPU_FAULT, "gpu-7", "", "a GPU is broken (node gpu-7)"),
        (Reason.GPU_FAULT, None, "GPU 1: Xid 48", "a GPU is broken (GPU 1: Xid 48)"),
        (Reason.GPU_FAULT, None, "", "a GPU is broken"),
        (Reason.RENDEZVOUS, "gpu-7", "GPU 1: Xid 48", "a GPU is broken"),
    ],
)
def test_a_fault_is_located(reason: Reason, node: str | None, evidence: str, said: str) -> None:
    failure = RunError(reason, "a GPU is broken").failure()
    outcome = Outcome(state=OutcomeState.FAILED, message=failure.message, failure=failure)
    found = located(outcome, node=node, evidence=evidence)
    assert found.failure
    assert (found.message, found.failure.message) == (said, said)


def test_where_a_fault_is_fits_into_a_failure() -> None:
    failure = RunError(Reason.GPU_FAULT, "x" * 1024).failure()
    outcome = Outcome(state=OutcomeState.FAILED, message=failure.message, failure=failure)
    found = located(outcome, node="gpu-7", evidence="GPU 1: Xid 48; " * 100)
    assert Outcome.model_validate_json(found.to_json()) == found
    assert "node gpu-7; GPU 1: Xid 48" in found.message
