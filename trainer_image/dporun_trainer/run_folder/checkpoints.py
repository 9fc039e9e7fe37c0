"""Checkpoints of a run: which are complete, which is best, which stay. Plain files and pure decisions, no torch."""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, ValidationError

from dporun_api import run_folder as names
from dporun_api.document import Document, Finite
from dporun_api.files import sync_folder, sync_tree, write_text
from dporun_api.results import BestCheckpoint

_HELD = ".held"
_ADOPTED = ".adopted"
"""Folders of checkpoints on their way out and in; what is hidden is never archived."""


class DamagedError(Exception):
    """What should be a checkpoint is none."""


class Marker(Document):
    """Content of the COMPLETE file, written last: what the checkpoint is, and which files it must consist of."""

    step: int = Field(ge=0)
    """Optimizer step."""
    epoch: Finite = Field(0, ge=0)
    """Passes over the training data until then."""
    eval_loss: Finite | None = None
    """Validation loss at that step; absent when it was not validated, or was not a number."""
    identity: dict[str, object] = Field(default_factory=dict)
    """What a later attempt must have in common with this one to go on exactly."""
    files: dict[str, int] = Field(default_factory=dict)
    """Size in bytes of every file, by its path below the checkpoint."""


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint."""

    path: Path
    marker: Marker

    @property
    def step(self) -> int:
        """Optimizer step at which it was saved."""
        return self.marker.step

    def files(self) -> list[str]:
        """Its files, relative to its folder, the marker last."""
        return [*sorted(self.marker.files), names.COMPLETE]

    @property
    def bytes(self) -> int:
        """Size of its files."""
        return sum(self.marker.files.values())

    def summary(self) -> BestCheckpoint:
        """Describe it for Progress and Outcome."""
        marker = self.marker
        return BestCheckpoint(step=marker.step, epoch=marker.epoch, eval_loss=marker.eval_loss, path=self.path.name)


class Checkpoints:
    """The checkpoints in a run's ``directory``: one folder per optimizer step, complete with its marker."""

    def __init__(self, directory: Path):
        self.directory = directory

    def folder(self, step: int) -> Path:
        """Folder of the checkpoint of ``step``."""
        return self.directory / f"{names.CHECKPOINT_PREFIX}{step}"

    def folders(self) -> dict[int, Path]:
        """Every checkpoint folder, torn ones included, by step in rising order."""
        found = {}
        for path in self.directory.glob(f"{names.CHECKPOINT_PREFIX}*"):
            step = path.name.removeprefix(names.CHECKPOINT_PREFIX)
            if step.isdecimal() and path.is_dir() and not path.is_symlink():
                found[int(step)] = path
        return dict(sorted(found.items()))

    def complete(self) -> list[Checkpoint]:
        """Find the complete checkpoints, in order of their steps.

        A torn one is left out: its marker is missing or unreadable, or names a file that is not there in full.
        """
        read = (_read(path, step) for step, path in self.folders().items())
        return [checkpoint for checkpoint in read if checkpoint is not None]

    def torn(self) -> list[Path]:
        """Folders that look like checkpoints and are not complete."""
        whole = {checkpoint.path for checkpoint in self.complete()}
        return [path for path in self.folders().values() if path not in whole]

    def best(self) -> Checkpoint | None:
        """The best of the complete checkpoints."""
        return best(self.complete())

    def newest(self) -> Checkpoint | None:
        """The complete checkpoint to resume from."""
        return newest_complete(self.complete())

    @contextlib.contextmanager
    def held(self, checkpoint: Checkpoint) -> Iterator[Path]:
        """Give a checkpoint's files a second name while the block runs, so that they stay whoever prunes it.

        Yields:
            The folder to read them from; the checkpoint's own where the file system has no hard links.

        """
        place = self.directory / _HELD / checkpoint.path.name
        shutil.rmtree(place, ignore_errors=True)
        try:
            try:
                shutil.copytree(checkpoint.path, place, copy_function=os.link)
            except OSError:
                place = checkpoint.path
            yield place
        finally:
            shutil.rmtree(self.directory / _HELD, ignore_errors=True)

    def discard_copies(self) -> None:
        """Delete what is on its way out or in: pruned checkpoints that are still held, and what was adopted halfway.

        Whoever holds one finds it gone.
        """
        for name in (_HELD, _ADOPTED):
            shutil.rmtree(self.directory / name, ignore_errors=True)

    def adopt(self, step: int, fill: Callable[[Path], None]) -> None:
        """Have ``fill`` write the files of a checkpoint that is not here; it appears whole or not at all.

        Raises:
            DamagedError: they are no complete checkpoint of ``step``; or what ``fill`` raises.

        """
        place = self.directory / _ADOPTED
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        try:
            fill(place)
            if _read(place, step) is None:
                raise DamagedError(f"the files of {self.folder(step).name} are no complete checkpoint")
            if self.folder(step).exists():
                discard(self.folder(step))
            place.rename(self.folder(step))
        finally:
            shutil.rmtree(place, ignore_errors=True)
        sync_folder(self.directory)

    def prune(self, *, running: bool) -> list[Path]:
        """Delete what ``to_delete`` names; the marker goes first, so that a half-deleted checkpoint is a torn one."""
        saved = self.complete()
        deleted = to_delete(saved, best(saved), running)
        for checkpoint in deleted:
            discard(checkpoint.path)
        return [checkpoint.path for checkpoint in deleted]

    def discard_torn(self) -> list[Path]:
        """Delete folders that look like checkpoints and are not complete."""
        torn = self.torn()
        for path in torn:
            discard(path)
        return torn

    def discard_all(self) -> None:
        """Delete every checkpoint, complete or torn."""
        for path in self.folders().values():
            discard(path)


def mark_complete(path: Path, marker: Marker) -> Checkpoint:
    """Make the files of a checkpoint durable, then mark it complete.

    Call it when every process has written its files.

    Raises:
        OSError: the disk is full or broken; the checkpoint stays without its marker.

    """
    sync_tree(path)
    files = sorted(file for file in path.rglob("*") if file.is_file() and file.name != names.COMPLETE)
    sizes = {file.relative_to(path).as_posix(): file.stat().st_size for file in files}
    complete_marker = marker.model_copy(update={"files": sizes})
    write_text(path / names.COMPLETE, complete_marker.to_json(indent=2, exclude_none=True) + "\n")
    return Checkpoint(path, complete_marker)


def update_marker(checkpoint: Checkpoint, *, eval_loss: float) -> Checkpoint:
    """Add the validation loss to a checkpoint that was saved before it was validated."""
    marker = checkpoint.marker.model_copy(update={"eval_loss": eval_loss})
    write_text(checkpoint.path / names.COMPLETE, marker.to_json(indent=2, exclude_none=True) + "\n")
    return Checkpoint(checkpoint.path, marker)


def newest_complete(checkpoints: Iterable[Checkpoint]) -> Checkpoint | None:
    """Choose the checkpoint to resume from."""
    return max(checkpoints, key=lambda checkpoint: checkpoint.step, default=None)


def best(checkpoints: Iterable[Checkpoint]) -> Checkpoint | None:
    """Choose the checkpoint with the lowest validation loss, of equal ones the earliest.

    The newest when none was validated.
    """
    everything = list(checkpoints)
    validated = [checkpoint for checkpoint in everything if checkpoint.marker.eval_loss is not None]
    if not validated:
        return newest_complete(everything)
    return min(validated, key=lambda checkpoint: (checkpoint.marker.eval_loss, checkpoint.step))


def to_delete(checkpoints: Sequence[Checkpoint], best: Checkpoint | None, running: bool) -> list[Checkpoint]:
    """Choose the checkpoints that nobody needs any more, in order of their steps.

    The best one always stays; while the run may still go on, so does the newest. Without a best one nothing is deleted.
    """
    if best is None:
        return []
    newest = newest_complete(checkpoints)
    keep = {best.step} | ({newest.step} if running and newest is not None else set())
    return sorted((one for one in checkpoints if one.step not in keep), key=lambda one: one.step)


def differences(
    saved: Mapping[str, object], wanted: Mapping[str, object], where: tuple[str, str] = ("then", "now")
) -> list[str]:
    """Describe where two identities differ: ``worldSize: 2 then, 1 now``."""
    fields = [*wanted, *(name for name in saved if name not in wanted)]
    return [
        f"{name}: {saved.get(name)} {where[0]}, {wanted.get(name)} {where[1]}"
        for name in fields
        if saved.get(name) != wanted.get(name)
    ]


def _read(path: Path, step: int) -> Checkpoint | None:
    try:
        marker = Marker.model_validate_json((path / names.COMPLETE).read_bytes())
        whole = all((path / name).stat().st_size == size for name, size in marker.files.items())
    except (OSError, ValidationError):
        return None
    return Checkpoint(path, marker) if whole and marker.step == step else None


def discard(path: Path) -> None:
    """Delete a checkpoint, complete or torn."""
    (path / names.COMPLETE).unlink(missing_ok=True)
    shutil.rmtree(path)
