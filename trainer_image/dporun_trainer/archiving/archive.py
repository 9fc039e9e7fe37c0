"""``archive``: upload what a run has to show for itself, verify it, and only then delete what nobody needs."""

import datetime
import hashlib
import logging
import platform
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath

from pydantic import ValidationError

from dporun_api.archive_policy import skip_reason
from dporun_api.results import ArchiveResult, Outcome, OutcomeState, Stage
from dporun_api.run_config import ArchiveContent, ArchiveTarget, Identity, RunConfig
from dporun_api.text import shorten
from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer.archiving.uploaded import read_index, remove_uploaded
from dporun_trainer.archiving.verification import content_of, find_damaged, listing
from dporun_trainer.disk import size
from dporun_trainer.errors import RunError
from dporun_trainer.run_folder import RunFolder
from dporun_trainer.run_folder.manifest import MANIFEST, ArchivedBase, Manifest, ManifestFile
from dporun_trainer.run_folder.parts import ADAPTER_WEIGHTS, select
from dporun_trainer.stores.archive_store import open_store
from dporun_trainer.stores.parallel import side_by_side
from dporun_trainer.stores.transfer import Content, Meter, Store
from dporun_trainer.versions import package_versions

log = logging.getLogger(__name__)

ATTEMPTS = 3
"""Uploads of one file before it counts as impossible."""


def archive(
    config: RunConfig, folder: RunFolder, *, prune_only: bool = False, manifest_sha256: str | None = None
) -> Outcome:
    """Archive a run, and delete its intermediate checkpoints.

    Can be repeated at any time, and after any interruption: what is stored and whole is not sent again, and nothing is
    deleted here before the archive is complete there. Deleting needs no space.

    Args:
        config: of the run.
        folder: of the run.
        prune_only: delete intermediate checkpoints, upload nothing.
        manifest_sha256: of the manifest that archiving this run has made before. Then the archive is verified: every
            file must be there as that manifest lists it, and what is not is sent again.

    Raises:
        RunError: the archive cannot be made, or something of it is lost; everything here is as it was.

    """
    ended = folder.outcome.read()
    if prune_only or config.archive is None:
        return _done(f"{_prune(folder, ended)}, nothing uploaded")
    if manifest_sha256 is not None:
        return _verify(config, config.archive, folder, manifest_sha256)
    succeeded = ended is not None and ended.state is OutcomeState.SUCCEEDED
    verdict = folder.verdict.read()
    skipped = skip_reason(
        config.archive,
        started=True,
        succeeded=succeeded,
        passed=verdict is not None and verdict.passed,
    )
    store = open_archive(config.archive, config.run)
    if skipped is not None:
        if succeeded:
            remove_uploaded(store, config.run)
        return _done(f"not archived: {skipped}; {_prune(folder, ended)}")
    before = folder.manifest.read()
    stored = store.read(MANIFEST)
    refuse_foreign(config.run, store, stored, before)
    contents = _read(folder, config.archive)
    _send(store, folder, contents)
    files = _listed(contents)
    known = [*Manifest.model_validate_json(stored).files] if stored is not None else []
    if not _has_adapter(files):
        known += _best_uploaded(store, config.run)
    files = _still_there(store, known, files) | files
    if succeeded and ArchiveContent.BEST in config.archive.include and not _has_adapter(files):
        raise RunError(
            Reason.ARCHIVE_IMPOSSIBLE,
            f"the run succeeded, but {folder.path} has no adapter, in final or in a complete checkpoint",
            hint="See what became of the files on the volume. What else there is has been uploaded.",
        )
    manifest = _manifest(config, folder, files, before or _parse(stored))
    result = _commit(config, folder, store, manifest, before)
    message = f"archived {result.files} files ({size(result.bytes)}) in {result.uri}; {_prune(folder, ended)}"
    log.info("%s", message)
    return _done(message, result)


def _verify(config: RunConfig, target: ArchiveTarget, folder: RunFolder, expected: str) -> Outcome:
    """Compare an archive with the manifest that it was made with, and send again what differs or is gone.

    Whether the run was to be archived, and which checkpoints nobody needs, was decided when that was done.
    """
    store = open_archive(target, config.run)
    copy = folder.manifest.read()
    stored = store.read(MANIFEST)
    if (found := _parse(stored)) is not None:
        refuse_foreign(config.run, store, stored, copy)
    else:  # it was ours, and is damaged or gone
        stored = None
    contents = _read(folder, target)
    intact = stored is not None and hashlib.sha256(stored).hexdigest() == expected
    known = found if intact else copy
    damaged = find_damaged(store, known, contents)
    whole = {file.path for file in known.files if file.path not in damaged} if known else set()
    _send(store, folder, {name: content for name, content in contents.items() if name not in whole})
    files = {file.path: file for file in known.files} if known else {}
    manifest = _manifest(config, folder, _listed(contents) | files, known)
    if not intact and stored != folder.manifest.encode(manifest).encode():
        damaged = [MANIFEST, *damaged]
    result = _commit(config, folder, store, manifest, copy, mended=len(damaged))
    message = f"verified {result.files} files ({size(result.bytes)}) in {result.uri}"
    if damaged:
        message += f"; changed or deleted since, and stored again: {listing(damaged)}"
    log.info("%s", message)
    return _done(message, result)


def open_archive(target: ArchiveTarget, run: Identity) -> Store:
    """Open the run's folder in the archive; see open_store for what it raises."""
    return open_store(target.uri, name=run.directory, endpoint=target.endpoint, region=target.region)


def _read(folder: RunFolder, target: ArchiveTarget) -> dict[str, Content]:
    """Compute the checksums of the files that are to be archived."""
    best = folder.checkpoints.best()
    names = select(list(folder.files()), target.include, best.path.name if best else None)
    sizes = {name: (folder.path / name).stat().st_size for name in names}
    meter = Meter("read", len(sizes), sum(sizes.values()), _progress_reporter(folder))
    contents = {}
    for name, length in sizes.items():
        contents[name] = Content.of(folder.path / name)
        meter.add(length)
        meter.file()
    return contents


def _listed(contents: dict[str, Content]) -> dict[str, ManifestFile]:
    return {name: ManifestFile(path=name, bytes=c.length, sha256=c.sha256) for name, c in contents.items()}


def _send(store: Store, folder: RunFolder, contents: dict[str, Content]) -> None:
    """Store files until each is verified to be there; small ones side by side, large ones in parallel parts."""
    length = sum(content.length for content in contents.values())
    meter = Meter("archived", len(contents), length, _progress_reporter(folder))

    def send(name: str) -> None:
        content = contents[name]
        if store.holds(name, content):
            meter.add(content.length)
        else:
            send_verified(store, name, folder.path / name, content, meter.add)
        meter.file()

    small = [name for name, content in contents.items() if len(content.parts) == 1]
    side_by_side(send, small)
    for name in contents.keys() - set(small):
        send(name)


def send_verified(store: Store, name: str, path: Path, content: Content, done: Callable[[int], None]) -> None:
    """Store a file until it is verified to be there; ``done`` is called with its bytes.

    Raises:
        RunError: something else arrives every time.

    """
    for attempt in range(1, ATTEMPTS + 1):
        store.upload(name, path, content, done if attempt == 1 else lambda _: None)
        if store.holds(name, content):
            return
        log.warning("%s does not match what was uploaded (attempt %d of %d)", name, attempt, ATTEMPTS)
    raise RunError(
        Reason.ARCHIVE_FAILED,
        f"{store.uri}/{name} does not match what was uploaded, {ATTEMPTS} times",
        hint="Check the network and the store's disks; the results are whole on the run's volume.",
    )


def _best_uploaded(store: Store, run: Identity) -> Sequence[ManifestFile]:
    """Files of the best checkpoint that was uploaded while the run trained."""
    best = read_index(store, run).best
    return best.files if best else ()


def _still_there(
    store: Store, known: Iterable[ManifestFile], files: dict[str, ManifestFile]
) -> dict[str, ManifestFile]:
    """Files that the archive already has and that are no longer here, such as checkpoints that were pruned since."""
    missing = [file for file in known if file.path not in files]
    return {file.path: file for file in missing if store.holds(file.path, content_of(file))}


def _has_adapter(files: Iterable[str]) -> bool:
    return any(PurePosixPath(name).name == ADAPTER_WEIGHTS for name in files)


def _manifest(
    config: RunConfig, folder: RunFolder, files: dict[str, ManifestFile], before: Manifest | None
) -> Manifest:
    """List ``files`` in a manifest; that of an earlier try, when it lists the same."""
    ordered = tuple(files[name] for name in sorted(files))
    if before is not None and before.files == ordered:
        return before
    best = folder.checkpoints.best()
    base = ArchivedBase(uri=config.model.uri, revision=config.model.revision)
    if (prepared := folder.prepared.read()) is not None:
        base = ArchivedBase(
            uri=config.model.uri, revision=prepared.model_revision, fingerprint=prepared.model.fingerprint
        )
    return Manifest(
        run=config.run,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        model=base,
        best_checkpoint=best.summary() if best else None,
        tools={"python": platform.python_version(), **package_versions()},
        files=ordered,
    )


def _commit(
    config: RunConfig,
    folder: RunFolder,
    store: Store,
    manifest: Manifest,
    before: Manifest | None,
    *,
    mended: int = 0,
) -> ArchiveResult:
    """Store the manifest, which makes the archive complete.

    A copy stays here and is written first: by it, a later try knows a manifest in the archive as its own.
    """
    try:
        folder.manifest.write(manifest)
    except OSError as error:
        log.warning("no copy of the manifest on the volume: %s", error)
    data = folder.manifest.encode(manifest).encode()
    if not store.create(MANIFEST, data):
        stored = store.read(MANIFEST)
        if stored != data:
            if not mended or _parse(stored) is not None:
                refuse_foreign(config.run, store, stored, before)
            store.replace(MANIFEST, data)
    if store.read(MANIFEST) != data:
        raise RunError(Reason.ARCHIVE_FAILED, f"{store.uri}/{MANIFEST} was changed by somebody else meanwhile")
    store.clean()  # only now: what an interrupted upload has left was continued, as far as it was of use
    paths = [file.path for file in manifest.files]
    if _has_adapter(paths):  # else what was uploaded while the run trained may be all that is left of it
        remove_uploaded(store, config.run, keep=paths)
    folder.progress.update(stage=Stage.DONE, detail=None)
    return ArchiveResult(
        uri=store.uri,
        manifest_sha256=hashlib.sha256(data).hexdigest(),
        files=len(manifest.files),
        bytes=sum(file.bytes for file in manifest.files),
        adapter=_has_adapter(paths),
        mended=mended,
    )


def refuse_foreign(run: Identity, store: Store, stored: bytes | None, before: Manifest | None) -> None:
    """Raise when the archive's folder belongs to another run: nothing of that one may be overwritten.

    Args:
        run: whose the folder should be.
        store: the archive.
        stored: its manifest.
        before: the manifest that the run's own volume has.

    """
    if stored is None:
        return
    found = _parse(stored)
    if found is not None and (found == before or (found.run == run and run.uid is not None)):
        return
    whose = f"the run {found.run.name} ({found.run.uid or 'local'})" if found else "something else"
    raise RunError(
        Reason.ARCHIVE_IMPOSSIBLE,
        f"{store.uri} contains another run's {MANIFEST}, of {whose}; nothing was uploaded",
        hint="Set archive.uri to another folder, or move the older archive away.",
    )


def _parse(stored: bytes | None) -> Manifest | None:
    """The manifest in the archive, if there is one that can be read."""
    try:
        return None if stored is None else Manifest.model_validate_json(stored)
    except ValidationError:
        return None


def _prune(folder: RunFolder, ended: Outcome | None) -> str:
    """Delete intermediate checkpoints; the best stays, and the newest of a run that might go on."""
    running = ended is None or ended.state is not OutcomeState.SUCCEEDED
    folder.checkpoints.discard_copies()
    try:
        deleted = folder.checkpoints.prune(running=running)
        if folder.checkpoints.complete():
            deleted += folder.checkpoints.discard_torn()
    except OSError as error:  # no reason to call an archive that is complete a failure
        log.warning("cannot delete intermediate checkpoints: %s", error)
        return f"intermediate checkpoints could not be deleted ({error})"
    return f"{len(deleted)} intermediate checkpoints deleted" if deleted else "no intermediate checkpoints to delete"


def _progress_reporter(folder: RunFolder) -> Callable[[str], None]:
    """Function that puts a line of progress into the run's progress file."""
    return lambda line: folder.progress.update(stage=Stage.ARCHIVING, detail=shorten(line, 256))


def _done(message: str, result: ArchiveResult | None = None) -> Outcome:
    return Outcome(state=OutcomeState.SUCCEEDED, message=shorten(message, 1024), archive=result)
