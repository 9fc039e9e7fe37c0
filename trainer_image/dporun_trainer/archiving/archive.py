"""``archive``: upload what a run has to show for itself, verify it, and only then delete what nobody needs."""

import concurrent.futures
import datetime
import hashlib
import logging
import platform
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from pydantic import ValidationError

from dporun_api.archive_policy import skip_reason
from dporun_api.results import ArchiveResult, BestCheckpoint, Outcome, OutcomeState, Stage
from dporun_api.run_config import ArchiveTarget, RunConfig
from dporun_api.text import shorten
from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer.errors import RunError
from dporun_trainer.run_folder import RunFolder
from dporun_trainer.run_folder.manifest import MANIFEST, ArchivedBase, Manifest, ManifestFile
from dporun_trainer.run_folder.parts import ADAPTER_WEIGHTS, select
from dporun_trainer.stores.archive_store import open_store
from dporun_trainer.stores.s3 import WORKERS
from dporun_trainer.stores.transfer import Content, Meter, Store, size
from dporun_trainer.versions import package_versions

log = logging.getLogger(__name__)

ATTEMPTS = 3
"""Uploads of one file before it counts as impossible."""


def archive(config: RunConfig, folder: RunFolder, *, prune_only: bool = False) -> Outcome:
    """Archive a run, and delete its intermediate checkpoints.

    Can be repeated at any time, and after any interruption: what is stored and whole is not sent again, and nothing is
    deleted here before the archive is complete there. Deleting needs no space.

    Args:
        config: of the run.
        folder: of the run.
        prune_only: delete intermediate checkpoints, upload nothing.

    Raises:
        RunError: the archive cannot be made; everything here is as it was.

    """
    ended = folder.outcome.read()
    if prune_only or config.archive is None:
        return _done(f"{_prune(folder, ended)}, nothing uploaded")
    verdict = folder.verdict.read()
    skipped = skip_reason(
        config.archive,
        started=True,
        succeeded=ended is not None and ended.state is OutcomeState.SUCCEEDED,
        passed=verdict is not None and verdict.passed,
    )
    if skipped is not None:
        return _done(f"not archived: {skipped}; {_prune(folder, ended)}")
    store = open_store(
        config.archive.uri,
        name=config.run.directory,
        endpoint=config.archive.endpoint,
        region=config.archive.region,
    )
    result = _upload(config, config.archive, folder, store)
    message = f"archived {result.files} files ({size(result.bytes)}) in {result.uri}; {_prune(folder, ended)}"
    log.info("%s", message)
    return _done(message, result)


def _upload(config: RunConfig, target: ArchiveTarget, folder: RunFolder, store: Store) -> ArchiveResult:
    """Store every file, verify it, and store the manifest last."""
    before = folder.manifest.read()
    stored = store.read(MANIFEST)
    _refuse_foreign(config, store, stored, before)
    best = folder.checkpoints.best()
    names = select(list(folder.files()), target.include, best.path.name if best else None)
    report_progress = _progress_reporter(folder)
    contents = _read(folder.path, names, report_progress)
    store.clean()
    _send(store, folder.path, contents, report_progress)
    files = {name: ManifestFile(path=name, bytes=c.length, sha256=c.sha256) for name, c in contents.items()}
    files = _archived_before(store, stored, files) | files
    earlier = before or _parse(stored)
    manifest = _manifest(config, folder, files, earlier, best.summary() if best else None)
    data = folder.manifest.encode(manifest).encode()
    _commit(config, folder, store, manifest, before)
    folder.progress.update(stage=Stage.DONE, detail=None)
    return ArchiveResult(
        uri=store.uri,
        manifest_sha256=hashlib.sha256(data).hexdigest(),
        files=len(files),
        bytes=sum(file.bytes for file in files.values()),
        adapter=any(PurePosixPath(name).name == ADAPTER_WEIGHTS for name in files),
    )


def _read(directory: Path, names: list[str], report: Callable[[str], None]) -> dict[str, Content]:
    """Compute the checksums of files."""
    sizes = {name: (directory / name).stat().st_size for name in names}
    meter = Meter("read", len(sizes), sum(sizes.values()), report)
    contents = {}
    for name, length in sizes.items():
        contents[name] = Content.of(directory / name)
        meter.add(length)
        meter.file()
    return contents


def _send(store: Store, directory: Path, contents: dict[str, Content], report: Callable[[str], None]) -> None:
    """Store files until each is verified to be there; small ones side by side, large ones in parallel parts."""
    meter = Meter("archived", len(contents), sum(content.length for content in contents.values()), report)

    def send(name: str) -> None:
        content = contents[name]
        if store.holds(name, content):
            meter.add(content.length)
        else:
            _send_one(store, name, directory / name, content, meter)
        meter.file()

    small = [name for name, content in contents.items() if len(content.parts) == 1]
    with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
        futures = [pool.submit(send, name) for name in small]
        try:
            for future in futures:
                future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    for name in contents.keys() - set(small):
        send(name)


def _send_one(store: Store, name: str, path: Path, content: Content, meter: Meter) -> None:
    for attempt in range(1, ATTEMPTS + 1):
        store.upload(name, path, content, meter.add if attempt == 1 else lambda _: None)
        if store.holds(name, content):
            return
        log.warning("%s does not match what was uploaded (attempt %d of %d)", name, attempt, ATTEMPTS)
    raise RunError(
        Reason.ARCHIVE_FAILED,
        f"{store.uri}/{name} does not match what was uploaded, {ATTEMPTS} times",
        hint="Check the network and the store's disks; the results are whole on the run's volume.",
    )


def _archived_before(store: Store, stored: bytes | None, files: dict[str, ManifestFile]) -> dict[str, ManifestFile]:
    """Files that the archive already has and that are no longer here, such as checkpoints that were pruned since."""
    if stored is None:
        return {}
    missing = [file for file in Manifest.model_validate_json(stored).files if file.path not in files]
    return {
        file.path: file
        for file in missing
        if store.holds(file.path, Content(file.bytes, file.sha256, 0, (bytes.fromhex(file.sha256),)))
    }


def _manifest(
    config: RunConfig,
    folder: RunFolder,
    files: dict[str, ManifestFile],
    before: Manifest | None,
    best: BestCheckpoint | None,
) -> Manifest:
    """List ``files`` in a manifest; that of an earlier try, when it lists the same."""
    ordered = tuple(files[name] for name in sorted(files))
    if before is not None and before.files == ordered:
        return before
    base = ArchivedBase(uri=config.model.uri, revision=config.model.revision)
    if (prepared := folder.prepared.read()) is not None:
        base = ArchivedBase(
            uri=config.model.uri, revision=prepared.model_revision, fingerprint=prepared.model.fingerprint
        )
    return Manifest(
        run=config.run,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        model=base,
        best_checkpoint=best,
        tools={"python": platform.python_version(), **package_versions()},
        files=ordered,
    )


def _commit(config: RunConfig, folder: RunFolder, store: Store, manifest: Manifest, before: Manifest | None) -> None:
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
            _refuse_foreign(config, store, stored, before)
            store.replace(MANIFEST, data)
    if store.read(MANIFEST) != data:
        raise RunError(Reason.ARCHIVE_FAILED, f"{store.uri}/{MANIFEST} was changed by somebody else meanwhile")


def _refuse_foreign(config: RunConfig, store: Store, stored: bytes | None, before: Manifest | None) -> None:
    """Raise when the archive's folder belongs to another run: nothing of that one may be overwritten."""
    if stored is None:
        return
    found = _parse(stored)
    if found is not None and (found == before or (found.run == config.run and config.run.uid is not None)):
        return
    whose = f"the run {found.run.name} ({found.run.uid or 'local'})" if found else "something else"
    raise RunError(
        Reason.ARCHIVE_FAILED,
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
