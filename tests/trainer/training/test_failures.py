import errno
from pathlib import Path

import pytest

from dporun_api.memory import GIB
from dporun_api.run_config import RunConfig
from dporun_api.v1alpha1.reasons import Reason
from dporun_testing.training import a_config
from dporun_trainer import disk
from dporun_trainer.errors import RunError
from dporun_trainer.machine import Machine
from dporun_trainer.memory import Shape
from dporun_trainer.training.plan import decide_plan

EIGHT = a_config(training={"per_device_batch_size": 8, "gradient_accumulation_steps": 1})


def test_a_checkpoint_that_finds_no_room_leaves_nothing_torn(small_disk: Path) -> None:
    """Somebody else has taken the room that there was before; torch does not say so."""
    import torch

    from dporun_trainer.training.failures import disk_errors

    folder = small_disk / "checkpoint-8"
    folder.mkdir()
    (small_disk / "filler").write_bytes(bytes(disk.free(small_disk) - 65536))
    words = "no space left on the volume while saving checkpoint-8"
    with pytest.raises(RunError, match=words) as raised, disk_errors(folder, "a hint"):
        torch.save({"weights": torch.zeros(2**20)}, folder / "optimizer.pt")
    assert (raised.value.reason, raised.value.hint) == (Reason.DISK_FULL, "a hint")
    assert not folder.exists()


def explained(error: Exception, config: RunConfig = EIGHT) -> tuple[Reason, int | None, str]:
    from dporun_trainer.training.failures import explain_training

    failure = explain_training(error, config, Path())
    return failure.reason, failure.exit_code, failure.hint or ""


def test_gpu_out_of_memory_proposes_a_smaller_batch() -> None:
    """With more accumulation, so of the same effect."""
    import torch

    for error in (
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nmore"),
        torch.AcceleratorError("CUDA error: out of memory"),
        torch.distributed.DistBackendError("NCCL error in: NCCLUtils.cpp:94\nFailed to CUDA calloc async 608 bytes"),
    ):
        reason, code, hint = explained(error)
        assert (reason, code) == (Reason.GPU_OUT_OF_MEMORY, 66)
        assert "perDeviceBatchSize: 4" in hint
        assert "gradientAccumulationSteps: 2" in hint


def test_gpu_out_of_memory_while_loading_names_the_weights() -> None:
    """Others hold most of the GPU: neither a smaller batch nor checkpointing would help."""
    import torch

    from dporun_trainer.training.failures import explain_training

    machine = Machine(cuda=True, bf16=True, memory=2 * GIB, name="H100", total=80 * GIB)
    shape = Shape(1_500_000_000, 8_000_000, 1536, 8960, 28, 151_936, 4, 64, lora_dropout=False)
    plan = decide_plan(EIGHT, machine, shape, train_rows=8, validation_rows=4)
    error = torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")
    hint = explain_training(error, EIGHT, Path(), plan=plan, machine=machine).hint or ""
    assert hint.startswith("Set model.quantization: nf4 (4 bits for each weight), or take a GPU with more memory")
    assert "The weights alone take 2.8 GiB" in hint
    assert "where 2.0 GiB are there" in hint


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError(), Reason.HOST_OUT_OF_MEMORY),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), Reason.HOST_OUT_OF_MEMORY),
        (RuntimeError("[gloo/transport/tcp/pair.cc] Connection closed by peer [127.0.0.1]"), Reason.RENDEZVOUS),
        (Exception("Current loss scale already at minimum - cannot decrease"), Reason.NON_FINITE_LOSS),
        (OSError(errno.ENOSPC, "No space left on device"), Reason.DISK_FULL),
        (RunError(Reason.MODEL_INVALID, "no weights"), Reason.MODEL_INVALID),
        (RuntimeError("CUDA error: unspecified launch failure"), Reason.GPU_FAULT),
        (KeyError("surprise"), Reason.TRAINER_ERROR),
    ],
)
def test_reasons(error: Exception, reason: Reason) -> None:
    assert explained(error)[0] is reason
