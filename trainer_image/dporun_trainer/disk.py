"""Room on a file system: how much there is, and whether an error means that there is none."""

import errno
import os
import shutil
import tempfile
from pathlib import Path

_FULL = {errno.ENOSPC, errno.EDQUOT}
_WORDS = ("No space left on device", "Disk quota exceeded", "Not enough disk space")
"""Libraries without errno, such as safetensors and tokenizers; the last are those of datasets, which asks before."""
_PROBE_BYTES = 2**20


def free(folder: Path) -> int:
    """Bytes that can still be written to the file system of ``folder``, which may not exist yet."""
    return shutil.disk_usage(_existing(folder)).free


def size(count: float) -> str:
    """Express a number of bytes for people: ``1.5 GiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def is_full(error: BaseException, folder: Path) -> bool:
    """Whether ``error`` came of a full disk: it or what led to it says so, or ``folder`` takes no data.

    torch's zip writer, numpy and DeepSpeed do not tell why they could not write, so the disk itself is asked.
    """
    return says_full(error) or takes_nothing(folder)


def says_full(error: BaseException) -> bool:
    """Whether ``error``, or one that led to it, says that a disk is full or a quota is used up."""
    chain: BaseException | None = error
    while chain is not None:
        if getattr(chain, "errno", None) in _FULL or any(words in str(chain) for words in _WORDS):
            return True
        chain = chain.__cause__ or chain.__context__
    return False


def takes_nothing(folder: Path) -> bool:
    """Whether not even a mebibyte can be written to ``folder``: tried, as quotas do not show in what is free."""
    try:
        with tempfile.TemporaryFile(dir=_existing(folder)) as file:
            file.write(bytes(_PROBE_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error.errno in _FULL
    return False


def is_elsewhere(path: str | bytes | int | None, folder: Path) -> bool:
    """Whether ``path``, such as an OSError names it, is on another file system than ``folder``."""
    if not isinstance(path, str):
        return False
    return _existing(Path(path)).stat().st_dev != _existing(folder).stat().st_dev


def _existing(path: Path) -> Path:
    return next((one for one in (path, *path.absolute().parents) if one.exists()), Path("/"))
