"""Does it fail as it says? Too little memory, a killed and a stopped process, broken weights, too few GPUs."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from dporun_api.results import Outcome
from dporun_api.v1alpha1.reasons import Reason
from dporun_testing import training
from dporun_testing.processes import running
from gpu.common import TOLERANCES, Found, Place, Run, Shape, main

_HOLD = """
import torch
free = torch.cuda.mem_get_info()[0]
held = torch.empty(max(free - {left}, 0), dtype=torch.uint8, device="cuda")
print("held", flush=True)
import signal; signal.pause()
"""


@contextmanager
def _held(left: int) -> Iterator[None]:
    """Another process holds the GPU's memory, but for ``left`` bytes."""
    with running([sys.executable, "-c", _HOLD.format(left=left)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield


def _fails(run: Run) -> Outcome:
    outcome = run.prepare() or run.train()
    assert outcome.failure is not None, outcome
    return outcome


def _named(run: Run, *reasons: Reason) -> Found:
    failure = _fails(run).failure
    assert failure is not None
    assert failure.reason in reasons, failure
    assert failure.hint, failure
    return {"reason": failure.reason, "message": failure.message, "hint": failure.hint, "exit code": failure.exit_code}


def batch_of_512(place: Place) -> Found:
    """A batch that does not fit ends with GPUOutOfMemory, and values that need less."""
    place.gpu_only("a GPU's memory is what runs out")
    model = place.model("wide", Shape(1024, 4096, 8, 16, 8, 32000))
    large: dict[str, Any] = {"per_device_batch_size": 512, "gradient_checkpointing": "never", "precision": "bf16"}
    run = Run(place, "batch-512", model=model, pairs=1024, words=40, training=large)
    with _held(8 * 2**30):
        return _named(run, Reason.GPU_OUT_OF_MEMORY)


def memory_is_taken(place: Place) -> Found:
    """A GPU whose memory another process holds ends with GPUOutOfMemory, or GPUFault where CUDA cannot even start."""
    place.gpu_only("a GPU's memory is what is taken")
    with _held(2**27):
        return _named(Run(place, "taken"), Reason.GPU_OUT_OF_MEMORY, Reason.GPU_FAULT)


def more_processes_than_gpus(place: Place) -> Found:
    """Two processes on one GPU are refused before anything is loaded."""
    place.gpu_only("on a CPU, processes share it")
    run = Run(place, "crowded", topology={"processes_per_node": torch.cuda.device_count() + 1})
    found = _named(run, Reason.INVALID_SPEC)
    assert "processesPerNode" in found["message"]
    return found


def broken_weights(place: Place) -> Found:
    """A model with a NaN among its weights is given up before it is trained, with NonFiniteLoss."""
    return _named(Run(place, "nan", model=place.model("broken", nan=True)), Reason.NON_FINITE_LOSS)


def killed(place: Place) -> Found:
    """A killed process ends the attempt at once, is named, and leaves nothing behind."""
    run = Run(place, "killed", training={"epochs": 500})
    assert run.prepare() is None
    with run.training() as process:
        _await(lambda: run.folder.progress.read().step >= 2, process)
        os.kill(training.ranks_of(run.folder.path)[0], signal.SIGKILL)
        process.wait()
    failure = run.folder.outcome.load().failure
    assert failure is not None
    assert (failure.reason, failure.rank) == (Reason.TRAINER_ERROR, 0), failure
    assert "SIGKILL" in failure.message
    assert not training.ranks_of(run.folder.path)
    return {"message": failure.message}


def stopped_and_resumed(place: Place) -> Found:
    """SIGTERM saves; the next attempt goes on from there, to what one attempt would have reached."""
    precision = "bf16" if place.cuda else "fp32"
    sections = {"training": {"precision": precision, "epochs": 6}, "dpo": {"precompute_ref_log_probs": "never"}}
    run, whole = Run(place, "stopped", **sections), Run(place, "whole", **sections)
    assert run.prepare() is None
    with run.training() as process:
        _await(lambda: run.folder.progress.read().step >= 2, process)
        process.send_signal(signal.SIGTERM)
        process.wait()
    stopped = run.folder.outcome.load()
    assert stopped.state == "Preempted", stopped
    assert stopped.step is not None
    resumed = run.train()
    assert resumed.state == "Succeeded", resumed
    assert resumed.resumed_from == f"checkpoint-{stopped.step}"
    whole.whole()
    difference = max(abs(ours - theirs) for ours, theirs in zip(run.losses(), whole.losses(), strict=True))
    assert difference <= (TOLERANCES[precision] if place.cuda else 0), difference
    return {"stopped at": stopped.step, "losses": run.losses(), "largest difference": difference}


def _await(holds: Callable[[], bool], process: "subprocess.Popen[bytes]") -> None:
    while not holds():
        assert process.poll() is None, "it has ended"
        time.sleep(0.05)


STEPS = (batch_of_512, memory_is_taken, more_processes_than_gpus, broken_weights, killed, stopped_and_resumed)

if __name__ == "__main__":
    sys.exit(main("failures", STEPS))
