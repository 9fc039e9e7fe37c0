"""``archive``: upload what a run has to show for itself, verify it, and only then delete what nobody needs."""

import concurrent.futures
import datetime
import hashlib
import logging
import os
import platform
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from pydantic import ValidationError

from dporun_api import run_folder as layout
from dporun_api.archive_policy import skip_reason
from dporun_api.files import write_text
from dporun_api.results import (
    ArchiveResult,
    BestCheckpoint,
    Outcome,
    OutcomeState,
    Stage,
    Verdict,
)  # fmt: skip
from dporun_api.run_config import ArchiveContent, ArchiveTarget, RunConfig
from dporun_api.text import shorten
from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer.errors import RunError
from dporun_trainer.progress import ProgressFile
from dporun_trainer.run_folder import checkpoints
from dporun_trainer.run_folder.manifest import ArchivedBase, Manifest, ManifestFile
from dporun_trainer.run_folder.prepared import Prepared
from dporun_trainer.stores.archive_store import open_store
from dporun_trainer.stores.s3 import WORKERS
from dporun_trainer.stores.transfer import Content, Meter, Store, size
from dporun_trainer.versions import package_versions

log = logging.getLogger(__name__)

ATTEMPTS = 3
"""Uploads of one file before it counts as impossible."""
_MANIFEST = str(layout.MANIFEST)
_FOLDERS = {
    str(layout.FINAL): ArchiveContent.BEST,
    str(layout.MERGED): ArchiveContent.MERGED,
    str(layout.RUNS): ArchiveContent.LOGS,
    str(layout.EVALUATION): ArchiveContent.EVALUATION,
}
_FILES = {
    str(layout.LOG_HISTORY): ArchiveContent.LOGS,
    str(layout.HEALTH): ArchiveContent.EVALUATION,
    str(layout.VERDICT): ArchiveContent.EVALUATION,
    str(layout.REPORT_HTML): ArchiveContent.EVALUATION,
    str(layout.REPORT_PNG): ArchiveContent.EVALUATION,
}
_OF_THE_VOLUME = {_MANIFEST, str(layout.PROGRESS), str(layout.ARCHIVE_OUTCOME)}


def archive(config: RunConfig, directory: Path, *, prune_only: bool = False) -> Outcome:
    """Archive a run, and delete its intermediate checkpoints.

    Can be repeated at any time, and after any interruption: what is stored and whole is not sent again, and nothing is
    deleted here before the archive is complete there. Deleting needs no space.

    Args:
        config: of the run.
        directory: of the run.
        prune_only: delete intermediate checkpoints, upload nothing.

    Raises:
        RunError: the archive cannot be made; everything here is as it was.

    """
    ended = _ended(directory)
    _report(directory, ended)
    if prune_only or config.archive is None:
        return _done(f"{_prune(directory, ended)}, nothing uploaded")
    verdict = _verdict(directory)
    skipped = skip_reason(
        config.archive,
        started=True,
        succeeded=ended is not None and ended.state is OutcomeState.SUCCEEDED,
        passed=verdict is not None and verdict.passed,
    )
    if skipped is not None:
        return _done(f"not archived: {skipped}; {_prune(directory, ended)}")
    store = open_store(
        config.archive.uri,
        name=config.run.directory,
        endpoint=config.archive.endpoint,
        region=config.archive.region,
    )
    result = _upload(config, config.archive, directory, store)
    message = f"archived {result.files} files ({size(result.bytes)}) in {result.uri}; {_prune(directory, ended)}"
    log.info("%s", message)
    return _done(message, result)


def select(names: list[str], include: tuple[ArchiveContent, ...], best: str | None) -> list[str]:
    """Choose what is archived.

    Args:
        names: every file of the run's directory, relative to it.
        include: the parts that are wanted.
        best: folder of the best checkpoint, to be archived instead of ``final/`` where a run ended without one.

    Returns:
        The names that go to the archive: of the parts that are wanted, and the run's configuration and metrics.

    """
    if any(name.startswith(f"{layout.FINAL}/") for name in names):
        best = None

    def wanted(name: str) -> bool:
        top, _, rest = name.partition("/")
        if any(part.startswith(".") or part.endswith(".part") for part in PurePosixPath(name).parts):
            return False
        if not rest:
            part = ArchiveContent.LOGS if name.endswith(".log") else _FILES.get(name)
            return name not in _OF_THE_VOLUME and (part is None or part in include)
        if top.startswith(layout.CHECKPOINT_PREFIX):
            return ArchiveContent.CHECKPOINTS in include or (ArchiveContent.BEST in include and top == best)
        return _FOLDERS.get(top) in include

    return sorted(name for name in names if wanted(name))


def _upload(config: RunConfig, target: ArchiveTarget, directory: Path, store: Store) -> ArchiveResult:
    """Store every file, verify it, and store the manifest last."""
    before = _own_manifest(directory)
    stored = store.read(_MANIFEST)
    _refuse_foreign(config, store, stored, before)
    best = checkpoints.best(checkpoints.complete(directory))
    whole = {checkpoint.path.name for checkpoint in checkpoints.complete(directory)}
    names = [
        name
        for name in select(list(_walk(directory)), target.include, best.path.name if best else None)
        if not name.startswith(layout.CHECKPOINT_PREFIX) or name.partition("/")[0] in whole
    ]
    say = _progress_reporter(directory)
    contents = _read(directory, names, say)
    store.clean()
    _send(store, directory, contents, say)
    files = {name: ManifestFile(path=name, bytes=c.length, sha256=c.sha256) for name, c in contents.items()}
    files = _archived_before(store, stored, files) | files
    data = _manifest(config, directory, files, before, best.summary() if best else None)
    _commit(config, directory, store, data, before)
    ProgressFile(directory / layout.PROGRESS).update(stage=Stage.DONE, detail=None)
    return ArchiveResult(
        uri=store.uri,
        manifest_sha256=hashlib.sha256(data).hexdigest(),
        files=len(files),
        bytes=sum(file.bytes for file in files.values()),
    )


def _report(directory: Path, ended: Outcome | None) -> None:
    """Write the report of a run that did not get as far as writing its own; not having one fails nothing."""
    if ended is not None and ended.state is OutcomeState.SUCCEEDED:
        return
    from dporun_trainer.reporting.report import write_report  # noqa: PLC0415  matplotlib

    try:
        write_report(directory)
    except Exception as error:  # noqa: BLE001  what the run left may be anything; how it ended is told elsewhere, too
        log.warning("cannot write the report of a run that did not finish: %s: %s", type(error).__name__, error)


def _read(directory: Path, names: list[str], say: Callable[[str], None]) -> dict[str, Content]:
    """Compute the checksums of files."""
    sizes = {name: (directory / name).stat().st_size for name in names}
    meter = Meter("read", len(sizes), sum(sizes.values()), say)
    contents = {}
    for name, length in sizes.items():
        contents[name] = Content.of(directory / name)
        meter.add(length)
        meter.file()
    return contents


def _send(store: Store, directory: Path, contents: dict[str, Content], say: Callable[[str], None]) -> None:
    """Store files until each is verified to be there; small ones side by side, large ones in parallel parts."""
    meter = Meter("archived", len(contents), sum(content.length for content in contents.values()), say)

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
        log.warning("%s is stored otherwise than it was sent (attempt %d of %d)", name, attempt, ATTEMPTS)
    raise RunError(
        Reason.ARCHIVE_FAILED,
        f"{store.uri}/{name} is stored otherwise than it was sent, {ATTEMPTS} times",
        hint="Check the network and the store's disks; the results are whole on the run's volume.",
    )


def _archived_before(store: Store, stored: bytes | None, files: dict[str, ManifestFile]) -> dict[str, ManifestFile]:
    """Files that the archive already has and that are no longer here, such as checkpoints that were pruned since."""
    if stored is None:
        return {}
    gone = [file for file in Manifest.model_validate_json(stored).files if file.path not in files]
    return {
        file.path: file
        for file in gone
        if store.holds(file.path, Content(file.bytes, file.sha256, 0, (bytes.fromhex(file.sha256),)))
    }


def _manifest(
    config: RunConfig,
    directory: Path,
    files: dict[str, ManifestFile],
    before: bytes | None,
    best: BestCheckpoint | None,
) -> bytes:
    """Write down ``files``; the manifest of an earlier try, when it says the same."""
    ordered = tuple(files[name] for name in sorted(files))
    if before is not None and Manifest.model_validate_json(before).files == ordered:
        return before
    try:
        prepared = Prepared.load(directory)
        base = ArchivedBase(
            uri=config.model.uri, revision=prepared.model_revision, fingerprint=prepared.model.fingerprint
        )
    except RunError:
        base = ArchivedBase(uri=config.model.uri, revision=config.model.revision)
    manifest = Manifest(
        run=config.run,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        model=base,
        best_checkpoint=best,
        tools={"python": platform.python_version(), **package_versions()},
        files=ordered,
    )
    return (manifest.to_json(indent=2, exclude_none=True) + "\n").encode()


def _commit(config: RunConfig, directory: Path, store: Store, data: bytes, before: bytes | None) -> None:
    """Store the manifest, which makes the archive complete.

    A copy stays here and is written first: it tells a later try that a manifest in the archive is its own.
    """
    try:
        write_text(directory / layout.MANIFEST, data.decode())
    except OSError as error:
        log.warning("no copy of the manifest on the volume: %s", error)
    if not store.create(_MANIFEST, data):
        stored = store.read(_MANIFEST)
        if stored != data:
            _refuse_foreign(config, store, stored, before)
            store.replace(_MANIFEST, data)
    if store.read(_MANIFEST) != data:
        raise RunError(Reason.ARCHIVE_FAILED, f"{store.uri}/{_MANIFEST} was changed by somebody else meanwhile")


def _refuse_foreign(config: RunConfig, store: Store, stored: bytes | None, before: bytes | None) -> None:
    """Raise when the archive's folder belongs to another run: nothing of that one may be overwritten."""
    if stored is None or stored == before:
        return
    try:
        owner = Manifest.model_validate_json(stored).run
    except ValidationError:
        owner = None
    if owner is None or owner != config.run or config.run.uid is None:
        whose = f"the run {owner.name} ({owner.uid or 'local'})" if owner else "something else"
        raise RunError(
            Reason.ARCHIVE_FAILED,
            f"{store.uri} holds a foreign {_MANIFEST}, of {whose}; nothing was uploaded",
            hint="Set archive.uri to another folder, or move the older archive away.",
        )


def _own_manifest(directory: Path) -> bytes | None:
    """The manifest of an earlier try to archive this directory."""
    try:
        data = (directory / layout.MANIFEST).read_bytes()
        Manifest.model_validate_json(data)
    except (OSError, ValidationError):
        return None
    return data


def _walk(directory: Path) -> Iterator[str]:
    """Every regular file below ``directory``; symbolic links are neither followed nor archived, inputs never."""
    for folder, folders, names in os.walk(directory):
        below = Path(folder).relative_to(directory)
        if below == Path():
            folders[:] = [name for name in folders if name != str(layout.INPUTS)]
        for name in [*names, *folders]:
            path = Path(folder) / name
            if path.is_symlink():
                log.warning("%s is a symbolic link and is not archived", path)
            elif path.is_file():
                yield (below / name).as_posix()


def _prune(directory: Path, ended: Outcome | None) -> str:
    """Delete intermediate checkpoints; the best stays, and the newest of a run that might go on."""
    running = ended is None or ended.state is not OutcomeState.SUCCEEDED
    try:
        gone = checkpoints.prune(directory, running=running)
        if checkpoints.complete(directory):
            for path in checkpoints.torn(directory):
                checkpoints.discard(path)
                gone.append(path)
    except OSError as error:  # no reason to call an archive that is complete a failure
        log.warning("cannot delete intermediate checkpoints: %s", error)
        return f"intermediate checkpoints could not be deleted ({error})"
    return f"{len(gone)} intermediate checkpoints deleted" if gone else "no intermediate checkpoints to delete"


def _progress_reporter(directory: Path) -> Callable[[str], None]:
    """What puts lines of progress into the run's progress file."""
    progress = ProgressFile(directory / layout.PROGRESS)
    return lambda line: progress.update(stage=Stage.ARCHIVING, detail=shorten(line, 256))


def _ended(directory: Path) -> Outcome | None:
    """How the run's training ended, where it got that far."""
    try:
        return Outcome.model_validate_json((directory / layout.OUTCOME).read_bytes())
    except (OSError, ValidationError):
        return None


def _verdict(directory: Path) -> Verdict | None:
    try:
        return Verdict.model_validate_json((directory / layout.VERDICT).read_bytes())
    except (OSError, ValidationError):
        return None


def _done(message: str, result: ArchiveResult | None = None) -> Outcome:
    return Outcome(state=OutcomeState.SUCCEEDED, message=shorten(message, 1024), archive=result)
