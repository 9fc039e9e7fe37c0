"""What CUDA, its libraries and NCCL say when a GPU fails, and what it means for the run. Pure; no torch.

The libraries raise whatever class they please, or write a line and abort, so their words are all there is to go by.
They are those of torch 2.15 (c10/cuda, ProcessGroupNCCL.cpp), NCCL 2.30, the CUDA runtime's cudaGetErrorString, and
bitsandbytes 0.50, which puts the latter into a line of its own and exits.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from dporun_api.results import Outcome
from dporun_api.text import shorten
from dporun_api.v1alpha1.reasons import Reason


@dataclass(frozen=True)
class Meaning:
    """What it means when one of ``words`` is said.

    Attributes:
        words: what is said, of which one line holds one.
        reason: why the run fails.
        message: what happened; the line itself follows it.
        hint: what to do about it, where that does not depend on the run.

    """

    words: re.Pattern[str]
    reason: Reason
    message: str
    hint: str | None = None


@dataclass(frozen=True)
class GpuFailure:
    """What failed, for people.

    Attributes:
        reason: one word for programs.
        message: what happened, with the line that says it.
        hint: what to do about it; None where that depends on the run.
        rank: training process that said it, where that is known.

    """

    reason: Reason
    message: str
    hint: str | None = None
    rank: int | None = None


def _any(*words: str) -> re.Pattern[str]:
    return re.compile("|".join(words))


_OLD_DRIVER = "Install a newer NVIDIA driver on the node, or choose other nodes (resources.nodeSelector)."

MEANINGS = (
    Meaning(
        _any(
            r"uncorrectable (?:ECC|NVLink) error",
            r"GPU[^\n]{0,40}: GPU is lost",
            r"has fallen off the bus",
            r"hardware stack error",
            r"Contained ECC error",
            r"NVRM: Xid",
        ),
        Reason.GPU_FAULT,
        "a GPU is broken",
        "Look at the node's Xid events (dmesg, nvidia-smi -q), and cordon it; the next attempt may land there again.",
    ),
    Meaning(
        _any(r"system not yet initialized", r"cudaErrorSystemNotReady"),
        Reason.GPU_FAULT,
        "the node's GPUs are not ready",
        "On nodes with NVSwitch the fabric manager must run: systemctl status nvidia-fabricmanager.",
    ),
    Meaning(
        _any(r"CUDA-capable device\(s\) is/are busy or unavailable"),
        Reason.GPU_FAULT,
        "another process holds the GPU",
        "Look with nvidia-smi who uses it, and whether its compute mode is exclusive.",
    ),
    Meaning(
        _any(r"no kernel image is available", r"cudaErrorNoKernelImageForDevice"),
        Reason.INVALID_SPEC,
        "this image has no kernels for the node's GPU",
        "Choose nodes with another GPU (resources.nodeSelector).",
    ),
    Meaning(
        _any(
            r"driver version is insufficient",
            r"NVIDIA driver on your system is too old",
            r"provided PTX was compiled with an unsupported toolchain",
            r"forward compatibility was attempted on non supported HW",
        ),
        Reason.INVALID_SPEC,
        "the node's NVIDIA driver is too old for this image",
        _OLD_DRIVER,
    ),
    Meaning(
        _any(
            r"^(?:torch\.)?OutOfMemoryError: ",
            r"CUDA out of memory",
            r"CUDA error: out of memory",
            r"CU(?:BLAS|DNN|SOLVER|SPARSE)_STATUS_ALLOC_FAILED",
            r"Triton Error \[CUDA\]: out of memory",
            r"Cuda failure (?:\d+ )?'out of memory'",
            r"Failed to CUDA (?:host )?calloc",
            r"cudaErrorMemoryAllocation",
            r"Error out of memory at line \d+ in file",
        ),
        Reason.GPU_OUT_OF_MEMORY,
        "the GPU ran out of memory",
    ),
    Meaning(
        _any(r"unspecified launch failure", r"the launch timed out and was terminated", r"CUDA error: unknown error"),
        Reason.GPU_FAULT,
        "a GPU stopped working",
        "When it happens again on the same node, cordon it: a healthy GPU does this only for a bug in a kernel.",
    ),
)
"""What is said, the most telling first: a broken GPU ends with every other error, too."""

_TIMEOUT = re.compile(
    r"\[Rank (?P<rank>\d+)\] Watchdog caught collective operation timeout: "
    r"WorkNCCL\(.*?OpType=(?P<operation>\w+).*?Timeout\(ms\)=(?P<limit>\d+)\)"
)
_RANK = re.compile(r"\[(?:default|rank)?(\d+)\]:|\[Rank (\d+)\]")
_XID = re.compile(r"Xid \([^)]*\): (\d+)")


def tells(line: str) -> bool:
    """Whether a line of output says why a GPU, or the contact between GPUs, failed."""
    return _TIMEOUT.search(line) is not None or any(meaning.words.search(line) for meaning in MEANINGS)


def in_error(error: Exception) -> GpuFailure | None:
    """Find what an exception of whatever class says of a GPU; see ``recognise``."""
    return recognise(f"{type(error).__name__}: {error}")


def recognise(text: str) -> GpuFailure | None:
    """Find the most telling thing that is said of a GPU in the output of one or several processes.

    Returns:
        What happened, in the words of the line that says it, with the rank where that is known; None when nothing is
        said of a GPU. The collective that timed out comes last: it is what the other processes see of any failure.

    """
    lines = text.splitlines()
    for meaning in MEANINGS:
        for line in lines:
            if meaning.words.search(line):
                xid = _XID.search(line)
                what = f"{meaning.message} (Xid {xid[1]})" if xid else meaning.message
                return GpuFailure(meaning.reason, f"{what}: {shorten(line.strip(), 300)}", meaning.hint, _rank(line))
    timeouts = [found for line in lines if (found := _TIMEOUT.search(line))]
    return _timeout(timeouts) if timeouts else None


def located(outcome: Outcome, *, node: str | None, evidence: str) -> Outcome:
    """Say of a failed GPU where it is, for whoever has to take it out of service.

    Args:
        outcome: of a pod.
        node: on which the pod ran; None where nobody said.
        evidence: what the driver knows of its GPUs' failures, in words.

    """
    failure = outcome.failure
    where = "; ".join(filter(None, [node and f"node {node}", evidence]))
    if failure is None or failure.reason is not Reason.GPU_FAULT or not where:
        return outcome
    message = f"{shorten(failure.message, 600)} ({shorten(where, 400)})"
    return outcome.model_copy(update={"message": message, "failure": failure.model_copy(update={"message": message})})


def _timeout(timeouts: Iterable[re.Match[str]]) -> GpuFailure:
    """Name the collective, and who waited in it: who is not named is where to look."""
    ranks = sorted({int(found["rank"]) for found in timeouts})
    first = next(iter(timeouts))
    who = f"process{'es' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))}"
    return GpuFailure(
        Reason.RENDEZVOUS,
        f"training {who} waited {int(first['limit']) // 1000} s in {first['operation']} for the others",
        "Look at the processes that are not named here, and at the network between the pods (NCCL_DEBUG=INFO).",
    )


def _rank(line: str) -> int | None:
    found = _RANK.search(line)
    return int(next(filter(None, found.groups()))) if found else None
