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
from dporun_trainer.errors import RunError
from dporun_trainer.outcome import explain

_LOST_CONTACT = (
    "Connection closed by peer",
    "Connection reset by peer",
    "Broken pipe",
    "Timed out waiting",
    "Connection refused",
    "NCCL error",
    "recvValue failed",
)
_DISK_IS_FULL = ("No space left on device", "Disk quota exceeded", "file write failed", "PytorchStreamWriter failed")


def explain_training(error: Exception, config: RunConfig, *, checkpointing: bool) -> Failure:
    """Turn an error of training into a Failure; its traceback goes to standard error.

    Args:
        error: that ended training in this process.
        config: of the run; the advice names its values.
        checkpointing: whether activations were recomputed already.

    """
    known = _known(error, config, checkpointing)
    if known is None:
        return explain(error)
    if known is not error:
        traceback.print_exception(error, file=sys.stderr)
    return known.failure()


def _known(error: Exception, config: RunConfig, checkpointing: bool) -> RunError | None:
    text = str(error)
    if isinstance(error, RunError):
        return error
    if isinstance(error, torch.cuda.OutOfMemoryError):
        first = text.splitlines()[0] if text else "CUDA out of memory"
        hint = after_gpu_out_of_memory(
            config.training, config.dpo, config.lora, processes=config.topology.world_size, checkpointing=checkpointing
        )
        return RunError(Reason.GPU_OUT_OF_MEMORY, f"the GPU ran out of memory: {first}", hint=hint)
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
    if isinstance(error, torch.distributed.DistError) or any(part in text for part in _LOST_CONTACT):
        return RunError(
            Reason.RENDEZVOUS,
            f"lost contact with another training process: {text.splitlines()[0] if text else type(error).__name__}",
            hint="Read how the other processes and pods of this run ended.",
        )
    return None


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a full disk, which every library reports in its own way, into one clear error.

    Raises:
        RunError: there was no space to write the checkpoint at ``path``; its incomplete files are removed.

    """
    try:
        yield
    except Exception as error:
        if not _disk_is_full(error):
            raise
        shutil.rmtree(path, ignore_errors=True)
        raise RunError(
            Reason.DISK_FULL,
            f"no space left on the volume while saving {path.name}",
            hint="Set a larger storage.size; the checkpoints saved so far are complete and kept.",
        ) from error


def _disk_is_full(error: BaseException) -> bool:
    # torch and safetensors raise errors of their own, some of them while they handle the disk's.
    chain: BaseException | None = error
    while chain is not None:
        if any(text in str(chain) for text in _DISK_IS_FULL):
            return True
        chain = chain.__cause__ or chain.__context__
    return False
