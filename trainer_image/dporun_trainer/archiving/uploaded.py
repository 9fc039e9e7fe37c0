"""The checkpoints that a run has uploaded while it trained, as its archive has them."""

import logging
from collections.abc import Collection

from pydantic import ValidationError

from dporun_api.run_config import Identity
from dporun_trainer.errors import RunError
from dporun_trainer.run_folder.checkpoint_index import CHECKPOINT_INDEX, CheckpointIndex, is_checkpoint_file
from dporun_trainer.stores.sources import ARCHIVE
from dporun_trainer.stores.transfer import Store

log = logging.getLogger(__name__)

_READINGS = 3
"""Readings of an index after which it counts as damaged there, and not on the way: then it says nothing."""


def read_index(store: Store, run: Identity) -> CheckpointIndex:
    """Read which checkpoints are whole in the archive of ``run``.

    Raises:
        RunError: the store cannot be read, or they are another run's.

    """
    index = next((found for _ in range(_READINGS) if (found := _read(store, run))), CheckpointIndex(run=run))
    if index.run != run:
        raise RunError(
            ARCHIVE.reason,
            f"{store.uri} has checkpoints of another run, {index.run.name} ({index.run.uid or 'local'})",
            hint="Set archive.uri to another folder.",
        )
    return index


def _read(store: Store, run: Identity) -> CheckpointIndex | None:
    """The index as it arrives; an empty one where there is none, None where it cannot be understood."""
    data = store.read(CHECKPOINT_INDEX)
    try:
        return CheckpointIndex(run=run) if data is None else CheckpointIndex.model_validate_json(data)
    except ValidationError as error:
        log.warning("%s/%s cannot be used: %s", store.uri, CHECKPOINT_INDEX, error)
        return None


def write_index(store: Store, index: CheckpointIndex) -> None:
    """Replace the index: what it names must be there."""
    store.replace(CHECKPOINT_INDEX, f"{index.to_json(indent=2, exclude_none=True)}\n".encode())


def remove_uploaded(store: Store, run: Identity, keep: Collection[str] = ()) -> None:
    """Delete checkpoints of ``run`` and their index from the archive, but for the files to ``keep``.

    That they cannot be deleted is no failure: credentials that may only write are good enough.

    Raises:
        RunError: the store cannot be read, or what is there is another run's.

    """
    read_index(store, run)
    names = [file.name for file in store.files()]
    outdated = [name for name in names if name not in keep and (name == CHECKPOINT_INDEX or is_checkpoint_file(name))]
    try:
        for name in sorted(outdated, key=lambda name: name != CHECKPOINT_INDEX):  # it never names what is not there
            store.delete(name)
    except RunError as error:
        log.warning("checkpoints that nobody needs any more stay in the archive: %s", error)
