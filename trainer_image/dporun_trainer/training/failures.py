"""Why a training process failed, in words that a person can act on."""

import errno
import sys
import traceback

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


def explain_training(error: Exception, config: RunConfig, *, checkpointing: bool) -> Failure:
    """Turn an error of training into a Failure; its traceback goes to standard error.

    Args:
        error: what ended training in this process.
        config: of the run, for advice in its own values.
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
    if isinstance(error, torch.distributed.DistError) or any(words in text for words in _LOST_CONTACT):
        return RunError(
            Reason.RENDEZVOUS,
            f"lost contact with another training process: {text.splitlines()[0] if text else type(error).__name__}",
            hint="See how the other processes and pods of this run ended.",
        )
    return None
