"""Bring an archived run back, and check every file against the manifest."""

from collections.abc import Mapping
from pathlib import Path

from dporun_api.files import sha256
from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer.errors import RunError
from dporun_trainer.run_folder.manifest import Manifest, ManifestFile
from dporun_trainer.stores.archive_store import open_store, read_manifest
from dporun_trainer.stores.sources import ARCHIVE
from dporun_trainer.stores.transfer import Meter, Store


def restore(
    uri: str, target: Path, *, endpoint: str | None = None, region: str | None = None, only: str = ""
) -> Manifest:
    """Copy the files of an archived run to ``target``; those already there stay, if they are what they should be.

    Args:
        uri: folder of the run in the archive.
        target: folder to make or to complete.
        endpoint: of an S3-compatible server.
        region: of the bucket.
        only: beginning of the paths to restore; all when empty.

    Raises:
        RunError: a file is missing or damaged in the archive, or ``target`` has another file in its place.

    """
    store = open_store(uri, endpoint=endpoint, region=region)
    manifest = read_manifest(store, ARCHIVE.reason)
    files = {file.path: file for file in manifest.files if file.path.startswith(only)}
    copy_files(store, files, target, ARCHIVE.reason)
    return manifest


def copy_files(store: Store, files: Mapping[str, ManifestFile], target: Path, reason: Reason) -> None:
    """Copy ``files`` of an archived run below ``target``, and check each against its checksum.

    Args:
        store: the archive.
        files: of its manifest, by the path that each gets below ``target``.
        target: folder to make or to complete.
        reason: of the error, should there be one.

    Raises:
        RunError: a file is missing or damaged in the archive, or ``target`` has another file in its place.

    """
    meter = Meter("restored", len(files), sum(file.bytes for file in files.values()))
    for name, file in files.items():
        path = target / name
        if path.exists():
            if not path.is_file() or path.stat().st_size != file.bytes or sha256(path) != file.sha256:
                raise RunError(
                    reason, f"{path} already exists with different content", hint="Restore to an empty folder."
                )
            meter.add(file.bytes)
        else:
            store.download(file.path, path, meter.add, file.sha256)
        meter.file()
