"""A full disk, for real: what each library says when it cannot write, and what we make of it."""

import errno
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer import disk
from dporun_trainer.outcome import explain

MIB = 2**20


def by_torch(path: Path) -> None:
    import torch

    torch.save({"weights": torch.zeros(MIB)}, path)


def by_safetensors(path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    save_file({"weights": torch.zeros(MIB)}, path)


def by_numpy(path: Path) -> None:
    import numpy as np

    with path.open("wb") as file:
        np.zeros(MIB).tofile(file)


def by_tensorboard(path: Path) -> None:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(path), max_queue=1)
    writer.add_text("text", "x" * 4 * MIB)
    writer.flush()
    writer.close()


def by_json(path: Path) -> None:
    path.write_text(json.dumps("x" * 4 * MIB), encoding="utf-8")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # TensorBoard's own thread
@pytest.mark.parametrize("write", [by_torch, by_safetensors, by_numpy, by_tensorboard, by_json])
def test_a_full_disk_whatever_the_library_says(small_disk: Path, write: Callable[[Path], None]) -> None:
    (small_disk / "filler").write_bytes(bytes(disk.free(small_disk) - 65536))
    with pytest.raises(Exception) as raised:  # noqa: PT011  each library has its own
        write(small_disk / "file")
    failure = explain(raised.value, small_disk)
    assert failure.reason is Reason.DISK_FULL
    assert "spec.storage.size" in str(failure.hint)


def test_the_same_error_is_another_one_where_there_is_room(small_disk: Path) -> None:
    error = RuntimeError("[enforce fail at inline_container.cc:671] . unexpected pos 128 vs 0")
    assert explain(error, small_disk).reason is Reason.TRAINER_ERROR
    (small_disk / "filler").write_bytes(bytes(disk.free(small_disk)))
    assert explain(error, small_disk).reason is Reason.DISK_FULL


def test_another_disk_than_the_volume_needs_another_remedy(small_disk: Path, tmp_path: Path) -> None:
    failure = explain(OSError(errno.ENOSPC, "No space left on device", str(small_disk / "cache")), tmp_path)
    assert failure.reason is Reason.DISK_FULL
    assert "ephemeral-storage" in str(failure.hint)


def test_an_error_that_led_to_another_one_counts() -> None:
    error = RuntimeError("cannot save")
    assert not disk.says_full(error)
    error.__context__ = OSError(errno.EDQUOT, "")
    assert disk.says_full(error)


def test_bytes_in_words() -> None:
    assert [disk.size(count) for count in (1, 1536, 5 * 2**30)] == ["1 B", "1.5 KiB", "5.0 GiB"]
