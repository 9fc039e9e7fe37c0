"""What every transfer of files needs: progress in the log, checksums, and how a store of files looks."""

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer.disk import size
from dporun_trainer.errors import RunError

log = logging.getLogger(__name__)

PART_BYTES = 64 * 2**20
"""Size of the parts in which S3 gets a large file."""
MAX_PARTS = 10_000
_LOG_SECONDS = 5.0


@dataclass(frozen=True)
class StoredFile:
    """A file in a store; ``name`` is relative to the store's folder, ``length`` in bytes."""

    name: str
    length: int


@dataclass(frozen=True)
class Content:
    """What a file holds: its length and its checksums.

    Attributes:
        length: in bytes.
        sha256: of the whole, in hexadecimal.
        part_bytes: size of the parts of a multipart upload, the last one apart.
        parts: SHA-256 of each part; one part for a file that is sent whole.

    """

    length: int
    sha256: str
    part_bytes: int
    parts: tuple[bytes, ...]

    @classmethod
    def of(cls, path: Path, part_bytes: int | None = None) -> "Content":
        """Read ``path`` once and compute its checksums."""
        part_bytes = max(part_bytes or PART_BYTES, -(-path.stat().st_size // MAX_PARTS))
        whole, length = hashlib.sha256(), 0
        parts: list[bytes] = []
        with path.open("rb") as file:
            while True:
                part, read = hashlib.sha256(), 0
                while chunk := file.read(min(2**20, part_bytes - read)):
                    whole.update(chunk)
                    part.update(chunk)
                    read += len(chunk)
                if read or not parts:
                    parts.append(part.digest())
                    length += read
                if read < part_bytes:
                    return cls(length, whole.hexdigest(), part_bytes, tuple(parts))

    def part(self, number: int) -> tuple[int, int]:
        """Where a part begins and how long it is, in bytes; the first part is 1."""
        start = (number - 1) * self.part_bytes
        return start, min(self.part_bytes, self.length - start)


class Store(Protocol):
    """A folder of files, somewhere. Names are relative to it, with ``/`` between their parts.

    Every method raises RunError when the store cannot be reached or refuses.
    """

    uri: str

    def files(self) -> Iterator[StoredFile]:
        """List all files."""

    def read(self, name: str) -> bytes | None:
        """Read a small file; None when there is none."""

    def download(self, name: str, path: Path, done: Callable[[int], None], sha256: str | None = None) -> str:
        """Copy a file to ``path``, whole and right or not at all; call ``done`` with bytes; return its SHA-256.

        Right is what has the checksum ``sha256``; without it, what has the checksum that the store knows, if any.

        Raises:
            DamagedFileError: it is not right, or not there.

        """

    def holds(self, name: str, content: Content) -> bool:
        """Whether the file is there with exactly this content, by its checksum, else by reading it."""

    def upload(self, name: str, path: Path, content: Content, done: Callable[[int], None]) -> None:
        """Store a file, replacing what is there; call ``done`` with bytes."""

    def create(self, name: str, data: bytes) -> bool:
        """Store a small file where there is none; False, and nothing changed, where there is one."""

    def replace(self, name: str, data: bytes) -> None:
        """Store a small file, replacing what is there."""

    def delete(self, name: str) -> None:
        """Delete a file; that there is none is no error."""

    def clean(self) -> None:
        """Remove what uploads that were killed have left, and that no later upload has completed."""


class DamagedFileError(RunError):
    """A store gives out a file otherwise than it got it, or has lost it."""


def damaged(uri: str, found: str, right: str, reason: Reason, kind: str = "SHA-256") -> DamagedFileError:
    """The error of a file that a store gives out changed; ``kind`` is that of the two checksums."""
    return DamagedFileError(
        reason,
        f"{uri} is damaged: its {kind} is {found}, it should be {right}",
        hint="Restore an earlier version of this object, if the bucket keeps them.",
    )


@dataclass
class Meter:
    """Counts what a transfer has done, and logs it now and then: files, bytes, percent, MB/s.

    ``seen``, when given, gets each of these lines (for the progress file).
    """

    verb: str
    files: int
    length: int
    seen: Callable[[str], None] | None = None
    _done_files: int = 0
    _done_bytes: int = 0
    _start: float = field(default_factory=time.monotonic)
    _logged: float = field(default_factory=time.monotonic)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, count: int) -> None:
        """Count ``count`` more bytes."""
        with self._lock:
            self._done_bytes += count
            if time.monotonic() - self._logged >= _LOG_SECONDS:
                self._say()

    def file(self) -> None:
        """Count one more file as done."""
        with self._lock:
            self._done_files += 1
            if self._done_files == self.files or time.monotonic() - self._logged >= _LOG_SECONDS:
                self._say()

    def _say(self) -> None:
        self._logged = time.monotonic()
        seconds = max(self._logged - self._start, 1e-3)
        share = 100 * self._done_bytes / self.length if self.length else 100.0
        line = (
            f"{self.verb} {self._done_files}/{self.files} files, {size(self._done_bytes)} of {size(self.length)} "
            f"({share:.0f} %), {self._done_bytes / 1e6 / seconds:.1f} MB/s"
        )
        log.info("%s", line)
        if self.seen is not None:
            self.seen(line)
