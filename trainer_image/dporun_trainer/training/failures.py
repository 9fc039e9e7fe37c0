"""Turn what ends a training process into an error that a person can act on."""

import contextlib
import errno
import shutil
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

import torch

from dporun_api.advice import after_gpu_out_of_memory
from dporun_api.results import Failure
from dporun_api.run_config import RunConfig
from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer import disk, gpu_errors
from dporun_trainer.errors import RunError
from dporun_trainer.machine import Machine
from dporun_trainer.outcome import explain
from dporun_trainer.training.plan import TrainingPlan
from dporun_trainer.training.ranks import tells_of_lost_contact


def explain_training(
    error: Exception,
    config: RunConfig,
    volume: Path,
    *,
    plan: TrainingPlan | None = None,
    machine: Machine | None = None,
) -> Failure:
    """Turn an error of training into a Failure; its traceback goes to standard error.

    Args:
        error: that ended training in this process.
        config: of the run; the advice names its values.
        volume: folder of the run.
        plan: what had been decided, where it had come to that.
        machine: what this process ran on, likewise.

    """
    known = _known(error, config, plan, machine)
    if known is None:
        return explain(error, volume)
    if known is not error:
        traceback.print_exception(error, file=sys.stderr)
    return known.failure()


def _known(error: Exception, config: RunConfig, plan: TrainingPlan | None, machine: Machine | None) -> RunError | None:
    text = str(error)
    if isinstance(error, RunError):
        return error
    if (found := gpu_errors.in_error(error)) is not None:
        hint = found.hint
        if found.reason is Reason.GPU_OUT_OF_MEMORY:
            hint = after_gpu_out_of_memory(
                config.training,
                config.dpo,
                quantization=config.model.quantization,
                processes=config.topology.world_size,
                checkpointing=plan is not None and plan.gradient_checkpointing,
                memory=plan.memory if plan else None,
                available=machine.memory if machine else None,
            )
        return RunError(found.reason, found.message, hint=hint)
    no_memory = isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
    if no_memory or "can't allocate memory" in text:
        return RunError(
            Reason.HOST_OUT_OF_MEMORY,
            f"the pod ran out of memory: {text or type(error).__name__}",
            hint="Raise resources.limits.memory, or lower training.perDeviceBatchSize.",
        )
    if "loss scale already at minimum" in text:
        return RunError(
            Reason.NON_FINITE_LOSS,
            "the gradients overflow in fp16 at every loss scale",
            hint="Lower training.learningRate, or take a GPU that has bf16.",
        )
    if isinstance(error, torch.distributed.DistError) or tells_of_lost_contact(text):
        return RunError(
            Reason.RENDEZVOUS,
            f"lost contact with another training process: {text.splitlines()[0] if text else type(error).__name__}",
            hint="Read how the other processes and pods of this run ended.",
        )
    return None


@contextlib.contextmanager
def disk_errors(path: Path, hint: str) -> Iterator[None]:
    """Turn a full disk, which every library reports in its own way, into one clear error with ``hint``.

    Raises:
        RunError: there was no space to write the checkpoint at ``path``; its incomplete files are removed.

    """
    try:
        yield
    except Exception as error:
        if isinstance(error, RunError) or not disk.is_full(error, path):
            raise
        shutil.rmtree(path, ignore_errors=True)
        raise RunError(Reason.DISK_FULL, f"no space left on the volume while saving {path.name}", hint=hint) from error
