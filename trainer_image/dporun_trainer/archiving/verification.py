"""Verification: which files of an archive are no longer as the manifest lists them that it was made with."""

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer.errors import RunError
from dporun_trainer.run_folder.manifest import MANIFEST, Manifest, ManifestFile
from dporun_trainer.run_folder.parts import ADAPTER_WEIGHTS
from dporun_trainer.stores.parallel import side_by_side
from dporun_trainer.stores.transfer import Content, Store

_NAMED = 5
"""Files that a message names; a listing is for people."""

_HINT = "Restore an earlier version of these objects, if the bucket keeps them."


def find_damaged(store: Store, known: Manifest | None, contents: Mapping[str, Content]) -> list[str]:
    """Find the files of an archive that are gone, or not as its manifest lists them.

    Args:
        store: the archive.
        known: its manifest, as it was when the archive was made; None when nobody has it any more.
        contents: the same run's files here, by name.

    Returns:
        Their names; each is among ``contents``, just as the manifest lists it.

    Raises:
        RunError: one of them is not here either, so that it is lost; or, without a manifest, there is no adapter here.

    """
    if known is None:
        if not any(PurePosixPath(name).name == ADAPTER_WEIGHTS for name in contents):
            message = f"{store.uri}/{MANIFEST} was changed or deleted, and the volume has neither a copy nor an adapter"
            raise RunError(Reason.ARCHIVE_FAILED, message, hint=_HINT)
        return []

    def is_whole(file: ManifestFile) -> bool:
        here = contents.get(file.path)
        return store.holds(file.path, here if here is not None and here.sha256 == file.sha256 else content_of(file))

    whole = side_by_side(is_whole, known.files)
    damaged = [file for file, is_there in zip(known.files, whole, strict=True) if not is_there]
    lost = [file.path for file in damaged if file.path not in contents or contents[file.path].sha256 != file.sha256]
    if lost:
        message = f"{store.uri}: changed or deleted since it was archived, and not on the volume: {listing(lost)}"
        raise RunError(Reason.ARCHIVE_FAILED, message, hint=_HINT)
    return [file.path for file in damaged]


def content_of(file: ManifestFile) -> Content:
    """What ``file`` holds, as far as a manifest says."""
    return Content(file.bytes, file.sha256, 0, (bytes.fromhex(file.sha256),))


def listing(names: Sequence[str]) -> str:
    """The first of ``names``, for people."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
