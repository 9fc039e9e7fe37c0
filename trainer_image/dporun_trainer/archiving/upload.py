"""Checkpoints to the archive while training goes on, and back from there to a volume that lost them.

The archive's folder mirrors what is kept on the volume: the newest complete checkpoint and the best one. An index says
which are whole there, and replaces itself atomically: it is written after the files that it names, and before those
are deleted that it names no more.
"""

import functools
import logging
from collections.abc import Iterable
from pathlib import Path

from dporun_api.run_config import Identity
from dporun_trainer.archiving.archive import refuse_foreign, send_verified
from dporun_trainer.archiving.uploaded import read_index, remove_uploaded, write_index
from dporun_trainer.run_folder import RunFolder
from dporun_trainer.run_folder.checkpoint_index import CHECKPOINT_INDEX, CheckpointIndex, UploadedCheckpoint
from dporun_trainer.run_folder.checkpoints import Checkpoint, DamagedError, Marker
from dporun_trainer.run_folder.manifest import MANIFEST, ManifestFile
from dporun_trainer.stores.transfer import Content, DamagedFileError, Store

log = logging.getLogger(__name__)


def upload_checkpoints(store: Store, folder: RunFolder, run: Identity) -> CheckpointIndex:
    """Make the archive have the newest and the best checkpoint of the volume, the newest first.

    Can be repeated at any time. A checkpoint that is newer in the archive than all of the volume stays there.

    Returns:
        What the archive has then.

    Raises:
        RunError: the store cannot be reached or refuses, or its folder is another run's.
        OSError: a file cannot be read, as when a checkpoint was pruned meanwhile.

    """
    refuse_foreign(run, store, store.read(MANIFEST), folder.manifest.read())
    before = index = read_index(store, run)
    newest, best = folder.checkpoints.newest(), folder.checkpoints.best()
    if newest is None or best is None:
        return index
    for checkpoint in {newest.step: newest, best.step: best}.values():
        uploaded = _upload(store, folder, checkpoint, index.get(checkpoint.step))
        if index.get(checkpoint.step) != uploaded:
            index = index.having(uploaded)
            write_index(store, index)
    newer = {one.step for one in index.checkpoints if one.step > newest.step}
    kept = index.only({newest.step, best.step} | newer)
    if kept != index:
        write_index(store, kept)
    if kept != before:
        store.clean()
        remove_uploaded(
            store, run, keep={CHECKPOINT_INDEX, *(file.path for one in kept.checkpoints for file in one.files)}
        )
    return kept


def _upload(
    store: Store, folder: RunFolder, checkpoint: Checkpoint, before: UploadedCheckpoint | None
) -> UploadedCheckpoint:
    """Upload the files of a checkpoint that are not in the archive yet, its marker last.

    One whose marker is as it was ``before`` is as it was: files of a complete checkpoint never change.
    """
    files = []
    with folder.checkpoints.held(checkpoint) as place:
        *names, marker = checkpoint.files()
        if before and _file(checkpoint, marker, Content.of(place / marker)) in before.files:
            return before
        for name in (*names, marker):
            content = Content.of(place / name)
            file = _file(checkpoint, name, content)
            if not store.holds(file.path, content):
                send_verified(store, file.path, place / name, content, lambda _: None)
            files.append(file)
        # What was sent may know more than ``checkpoint``: it may have been validated after that was read.
        loss = Marker.model_validate_json((place / marker).read_bytes()).eval_loss
    return UploadedCheckpoint(step=checkpoint.step, eval_loss=loss, files=tuple(files))


def _file(checkpoint: Checkpoint, name: str, content: Content) -> ManifestFile:
    return ManifestFile(path=f"{checkpoint.path.name}/{name}", bytes=content.length, sha256=content.sha256)


def newer_checkpoints(store: Store, folder: RunFolder, run: Identity) -> list[UploadedCheckpoint]:
    """The archive's checkpoints that are not on the volume, when the newest is newer than all that are.

    Raises:
        RunError: the store cannot be reached, or its folder is another run's.

    """
    index = read_index(store, run)
    here = {checkpoint.step for checkpoint in folder.checkpoints.complete()}
    if index.newest is None or index.newest.step <= max(here, default=-1):
        return []
    return [one for one in index.checkpoints if one.step not in here]


def fetch_checkpoints(store: Store, folder: RunFolder, checkpoints: Iterable[UploadedCheckpoint]) -> None:
    """Bring ``checkpoints`` to the volume. Each appears whole or not at all; one that is not whole there is left there.

    Raises:
        RunError: the store cannot be reached.
        OSError: the volume is full.

    """
    for one in checkpoints:
        try:
            folder.checkpoints.adopt(one.step, functools.partial(_download, store, one))
        except (DamagedError, DamagedFileError) as error:
            log.warning("%s is left where it is: %s", one.name, error)
        else:
            log.info("fetched %s from %s", one.name, store.uri)


def _download(store: Store, checkpoint: UploadedCheckpoint, place: Path) -> None:
    for file in checkpoint.files:
        path = place / file.path.removeprefix(f"{checkpoint.name}/")
        store.download(file.path, path, lambda _: None, file.sha256)
