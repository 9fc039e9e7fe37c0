"""Bring a source's files to this volume, or find them where they are."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer import disk
from dporun_trainer.disk import size
from dporun_trainer.errors import RunError
from dporun_trainer.inputs import hub, splits
from dporun_trainer.inputs.splits import DATA_SUFFIXES
from dporun_trainer.inputs.weights import wanted
from dporun_trainer.stores.s3 import S3Store
from dporun_trainer.stores.sources import Credentials, HubSource, LocalSource, S3Source, files_of, parse
from dporun_trainer.stores.transfer import Meter, StoredFile

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fetcher:
    """Fetches to a folder.

    Attributes:
        claims: folder below which claims are mounted.
        seen: gets lines of progress.

    """

    claims: Path
    seen: Callable[[str], None] | None = None

    def model(self, uri: str, revision: str | None, folder: Path, credentials: Credentials) -> tuple[Path, str | None]:
        """Make the base model available: (its folder, its commit on the Hub).

        Raises:
            RunError: it cannot be had; the error names what to check.

        """
        match parse(uri, claims=self.claims, reason=credentials.reason):
            case LocalSource() as local:
                files_of(local, uri, credentials.reason)
                return local.path, None
            case S3Source(bucket, key):
                store = S3Store(bucket, key, credentials)
                files = {file.name: file for file in store.files()}
                if not files:
                    raise RunError(credentials.reason, f"{uri}: nothing there", hint="Check the path of the model.")
                self._from_s3(store, [files[name] for name in wanted(list(files))], folder, "model")
                return folder, None
            case HubSource() as repository:
                listing = hub.list_files(_at(repository, revision), "model", credentials)
                names = wanted([file.name for file in listing.files])
                self._from_hub(listing, names, folder, credentials, "model")
                return folder, listing.commit

    def data(self, uri: str, folder: Path, credentials: Credentials) -> list[tuple[Path, str]]:
        """Make files of data available, in their order: (path, name for messages).

        ``uri`` names one file, or a folder of shards, or a split of a data set of the Hub.

        Raises:
            RunError: they cannot be had; the error names what to check.

        """
        match parse(uri, claims=self.claims, reason=credentials.reason):
            case LocalSource() as local:
                found = files_of(local, uri, credentials.reason)
                names = [path.name for path in found]
                if local.path.is_dir():
                    names = [name for name in names if name.endswith(DATA_SUFFIXES)]
                paths = {path.name: path for path in found}
                return [(paths[name], name) for name in _some(names, uri, credentials.reason)]
            case S3Source(bucket, key):
                parent, _, name = key.rstrip("/").rpartition("/")
                store = S3Store(bucket, parent, credentials)
                one = store.stat(name) if name else None
                if one is None:
                    store = S3Store(bucket, key, credentials)
                    files = [file for file in store.files() if file.name.endswith(DATA_SUFFIXES)]
                else:
                    files = [one]
                _some([file.name for file in files], uri, credentials.reason)
                self._from_s3(store, files, folder, "data")
                return [(folder / file.name, file.name) for file in files]
            case HubSource() as repository:
                listing = hub.list_files(repository, "dataset", credentials)
                card = {}
                if any(file.name == "README.md" for file in listing.files):
                    self._from_hub(listing, ["README.md"], folder, credentials, "data")
                    card = splits.read_card((folder / "README.md").read_text(encoding="utf-8", errors="replace"))
                names = splits.data_files(
                    repository.repo,
                    [file.name for file in listing.files],
                    card,
                    split=repository.split,
                    config=repository.config,
                )
                self._from_hub(listing, names, folder, credentials, "data")
                return [(folder / name, name) for name in names]

    def _from_s3(self, store: S3Store, files: list[StoredFile], folder: Path, what: str) -> None:
        for file in files:
            if ".." in PurePosixPath(file.name).parts or PurePosixPath(file.name).is_absolute():
                raise RunError(Reason.DATASET_INVALID, f"{store.uri}/{file.name}: a name that leads elsewhere")
        missing = [file for file in files if not _whole(folder / file.name, file)]
        meter = self._meter(what, missing, folder)
        for file in missing:
            store.download(file.name, folder / file.name, meter.add)
            meter.file()

    def _from_hub(
        self, listing: hub.Listing, names: list[str], folder: Path, credentials: Credentials, what: str
    ) -> None:
        files = [file for file in listing.files if file.name in names and not _whole(folder / file.name, file)]
        hub.download(listing, names, folder, credentials, self._meter(what, files, folder))

    def _meter(self, what: str, files: list[StoredFile], folder: Path) -> Meter:
        folder.mkdir(parents=True, exist_ok=True)
        needed = sum(file.length for file in files)
        free = disk.free(folder)
        if needed > free:
            raise RunError(
                Reason.DISK_FULL,
                f"the {what} needs {size(needed)}, and {folder} has {size(free)} free",
                hint="Set a larger spec.storage.size.",
            )
        return Meter(f"fetched {what}:", len(files), needed, self.seen)


def _at(repository: HubSource, revision: str | None) -> HubSource:
    return HubSource(repository.repo, repository.split, repository.config, revision or repository.revision)


def _whole(path: Path, file: StoredFile) -> bool:
    """Whether an earlier attempt fetched the file: downloads appear whole or not at all."""
    return path.is_file() and path.stat().st_size == file.length


def _some(names: list[str], uri: str, reason: Reason) -> list[str]:
    if not names:
        raise RunError(
            reason,
            f"{uri}: nothing there that holds rows",
            hint=f"Name a file, or a folder with files of these kinds: {', '.join(DATA_SUFFIXES)}.",
        )
    return names
