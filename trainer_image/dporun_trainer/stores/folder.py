"""A folder of this computer as a Store, for runs without a cluster."""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from dporun_api.files import sha256 as digest
from dporun_api.files import sync_folder
from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer.errors import RunError
from dporun_trainer.stores.transfer import Content, DamagedFileError, StoredFile, damaged

_PART = ".part"


class FolderStore:
    """A local folder as a Store (see there); files appear whole or not at all."""

    def __init__(self, root: Path, reason: Reason = Reason.ARCHIVE_FAILED):
        self._root = root
        self._reason = reason
        self.uri = str(root)

    def files(self) -> Iterator[StoredFile]:
        """List all files, those of an interrupted copy left out."""
        for path in sorted(self._root.rglob("*")):
            if path.is_file() and path.suffix != _PART:
                yield StoredFile(path.relative_to(self._root).as_posix(), path.stat().st_size)

    def read(self, name: str) -> bytes | None:
        """Read a small file; None when there is none."""
        try:
            return (self._root / name).read_bytes()
        except FileNotFoundError:
            return None

    def download(self, name: str, path: Path, done: Callable[[int], None], sha256: str | None = None) -> str:
        """Copy a file to ``path``, if it is what it should be, and return its SHA-256."""
        if not (self._root / name).is_file():
            raise DamagedFileError(self._reason, f"{self._root / name} does not exist")
        temporary = self._copied(self._root / name, path)
        found = digest(temporary)
        if sha256 is not None and found != sha256:
            temporary.unlink()
            raise damaged(f"{self._root / name}", found, sha256, self._reason)
        self._place(temporary, path)
        done(path.stat().st_size)
        return found

    def holds(self, name: str, content: Content) -> bool:
        """Whether the file is there with exactly this content."""
        path = self._root / name
        return path.is_file() and path.stat().st_size == content.length and digest(path) == content.sha256

    def upload(self, name: str, path: Path, content: Content, done: Callable[[int], None]) -> None:
        """Copy a file into the folder."""
        self._place(self._copied(path, self._root / name), self._root / name)
        done(content.length)

    def create(self, name: str, data: bytes) -> bool:
        """Write a small file where there is none."""
        temporary = self._write(name, data)
        try:
            os.link(temporary, self._root / name)  # unlike a rename, this fails where a file is
        except FileExistsError:
            return False
        finally:
            temporary.unlink()
        sync_folder((self._root / name).parent)
        return True

    def replace(self, name: str, data: bytes) -> None:
        """Write a small file, replacing what is there."""
        self._write(name, data).replace(self._root / name)
        sync_folder((self._root / name).parent)

    def delete(self, name: str) -> None:
        """Delete a file, and its folder when that is empty then."""
        path = self._root / name
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise self._failure(error) from error
        with contextlib.suppress(OSError):
            path.parent.rmdir()

    def clean(self) -> None:
        """Remove what interrupted copies have left."""
        for path in self._root.rglob(f"*{_PART}"):
            path.unlink()

    def _write(self, name: str, data: bytes) -> Path:
        temporary = self._root / (name + _PART)
        try:
            temporary.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise self._failure(error) from error
        return temporary

    def _copied(self, source: Path, target: Path) -> Path:
        """Copy ``source`` to a temporary file beside ``target``."""
        temporary = target.with_name(target.name + _PART)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with source.open("rb") as reader, temporary.open("wb") as writer:
                shutil.copyfileobj(reader, writer, 2**20)
                writer.flush()
                os.fsync(writer.fileno())
        except OSError as error:
            raise self._failure(error) from error
        return temporary

    def _place(self, temporary: Path, target: Path) -> None:
        try:
            temporary.replace(target)
            sync_folder(target.parent)
        except OSError as error:
            raise self._failure(error) from error

    def _failure(self, error: OSError) -> RunError:
        return RunError(
            self._reason,
            f"cannot write to {self._root}: {error}",
            hint="Check that the folder may be written and has space left.",
        )
