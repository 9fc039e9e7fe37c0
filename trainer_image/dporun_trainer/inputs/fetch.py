"""Bring a source's files to this volume, or find them where they are."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer import disk
from dporun_trainer.data.rows import RowFile, count_rows
from dporun_trainer.disk import size
from dporun_trainer.errors import RunError
from dporun_trainer.inputs.slices import Slice, shares, split_address
from dporun_trainer.inputs.splits import choose, read_card, split_glob
from dporun_trainer.inputs.weights import wanted
from dporun_trainer.stores.sources import (
    Credentials,
    HubSource,
    LocalSource,
    S3Source,
    files_below,
    parse,
    require_inside,
    require_there,
)
from dporun_trainer.stores.transfer import Meter, StoredFile

if TYPE_CHECKING:  # the clients take most of a second to import, and local files need none
    from dporun_trainer.inputs import hub
    from dporun_trainer.stores.s3 import S3Store

log = logging.getLogger(__name__)

README = "README.md"
_MODEL = "Write hf://OWNER/NAME."


@dataclass(frozen=True)
class Fetcher:
    """Fetches to a folder.

    Attributes:
        claims: folder below which claims are mounted.
        seen: gets lines of progress.

    """

    claims: Path
    seen: Callable[[str], None] | None = None

    def model(
        self,
        uri: str,
        revision: str | None,
        folder: Path,
        credentials: Credentials,
        *,
        pick: Callable[[list[str]], list[str]] = wanted,
    ) -> tuple[Path, str | None]:
        """Make the files of the base model that ``pick`` picks available: (its folder, its commit on the Hub).

        Raises:
            RunError: it cannot be had; the error names what to check.

        """
        match parse(uri, claims=self.claims, reason=credentials.reason):
            case LocalSource() as local:
                require_there(local, uri, credentials.reason)
                return local.path, None
            case S3Source(bucket, key):
                from dporun_trainer.stores.s3 import S3Store  # noqa: PLC0415  heavy

                store = S3Store(bucket, key, credentials)
                files = {file.name: file for file in store.files()}
                if not files:
                    raise RunError(credentials.reason, f"{uri}: nothing there", hint="Check the path of the model.")
                self._from_s3(store, [files[name] for name in pick(list(files))], folder, "model")
                return folder, None
            case HubSource() as repository:
                from dporun_trainer.inputs import hub  # noqa: PLC0415  heavy

                if repository.path:
                    raise RunError(credentials.reason, f"{uri}: a model is a whole repository", hint=_MODEL)
                listing = hub.list_files(_at(repository, revision), "model", credentials)
                names = pick([file.name for file in listing.files])
                self._from_hub(listing, names, folder, credentials, "model")
                return folder, listing.commit

    def data(self, uri: str, folder: Path, credentials: Credentials) -> list[RowFile]:
        """Make files of data available, in their order.

        ``uri`` names a file, a folder or a glob of files, or a data set of the Hub; its query names a part of it.

        Raises:
            RunError: they cannot be had; the error names what to check.

        """
        address, part = split_address(uri, credentials.reason)
        match parse(address, claims=self.claims, reason=credentials.reason):
            case LocalSource() as local:
                place = self._local(local, address, credentials)
            case S3Source() as source:
                place = self._bucket(source, folder, credentials)
            case HubSource() as repository:
                place = self._repository(_at(repository, part.revision), folder, credentials)
        card = {}
        if place.path == "" and README in place.names and (part.asked or place.split):
            card = read_card(place.bring([README])[0].read_text(encoding="utf-8", errors="replace"))
        chosen = choose(address, place.names, place.path, part, card, split=place.split)
        names = sorted({name for _, some in chosen for name in some})
        paths = dict(zip(names, place.bring(names), strict=True))
        return [file for part, some in chosen for file in _cut(part, [RowFile(paths[name], name) for name in some])]

    def _local(self, local: LocalSource, uri: str, credentials: Credentials) -> "_Place":
        root, path = local.path, ""
        if root.is_file():
            root, path = root.parent, root.name
        elif not root.exists() and (found := split_glob(str(root))):
            root, path = Path(found[0]), found[1]
        require_there(LocalSource(root), uri, credentials.reason)

        def bring(names: Sequence[str]) -> list[Path]:
            for name in names:
                require_inside(root / name, local, uri, credentials.reason)
            return [root / name for name in names]

        return _Place([path] if (root / path).is_file() else list(files_below(root)), path, bring)

    def _bucket(self, source: S3Source, folder: Path, credentials: Credentials) -> "_Place":
        from dporun_trainer.stores.s3 import S3Store  # noqa: PLC0415  heavy

        parent, _, path = source.key.rstrip("/").rpartition("/")
        store = S3Store(source.bucket, parent, credentials)
        if path and (one := store.stat(path)) is not None:
            files = {path: one}
        else:
            root, path = split_glob(source.key) or (source.key, "")
            store = S3Store(source.bucket, root, credentials)
            files = {file.name: file for file in store.files()}

        def bring(names: Sequence[str]) -> list[Path]:
            self._from_s3(store, [files[name] for name in names], folder, "data")
            return [folder / name for name in names]

        return _Place(list(files), path, bring)

    def _repository(self, repository: HubSource, folder: Path, credentials: Credentials) -> "_Place":
        from dporun_trainer.inputs import hub  # noqa: PLC0415  heavy

        listing = hub.list_files(repository, "dataset", credentials)

        def bring(names: Sequence[str]) -> list[Path]:
            self._from_hub(listing, names, folder, credentials, "data")
            return [folder / name for name in names]

        names = [file.name for file in listing.files]
        return _Place(names, repository.path, bring, split=None if repository.path else "train")

    def _from_s3(self, store: "S3Store", files: list[StoredFile], folder: Path, what: str) -> None:
        for file in files:
            if ".." in PurePosixPath(file.name).parts or PurePosixPath(file.name).is_absolute():
                raise RunError(Reason.DATASET_INVALID, f"{store.uri}/{file.name}: a name that leads elsewhere")
        missing = [file for file in files if not _whole(folder / file.name, file)]
        meter = self._meter(what, missing, folder)
        for file in missing:
            store.download(file.name, folder / file.name, meter.add)
            meter.file()

    def _from_hub(
        self, listing: "hub.Listing", names: Sequence[str], folder: Path, credentials: Credentials, what: str
    ) -> None:
        from dporun_trainer.inputs import hub  # noqa: PLC0415  heavy

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


@dataclass(frozen=True)
class _Place:
    """Where data is: its files, which of them are meant, how to get them, and which split when none is named."""

    names: Sequence[str]
    path: str
    bring: Callable[[Sequence[str]], list[Path]]
    split: str | None = None


def _cut(part: Slice, files: list[RowFile]) -> list[RowFile]:
    """The rows of ``files`` that a slice takes; they are counted only where it does not take all."""
    if part.whole:
        return files
    counts = [count_rows(file) for file in files]
    return [
        replace(file, start=start, stop=stop)
        for file, (start, stop) in zip(files, shares(part, counts), strict=True)
        if start < stop
    ]


def _at(repository: HubSource, revision: str | None) -> HubSource:
    return replace(repository, revision=revision or repository.revision)


def _whole(path: Path, file: StoredFile) -> bool:
    """Whether an earlier attempt fetched the file: downloads appear whole or not at all."""
    return path.is_file() and path.stat().st_size == file.length
