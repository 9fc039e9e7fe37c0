"""The folder of an archived run: the store behind its URI, and its manifest."""

from pathlib import Path

from pydantic import ValidationError

from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer.errors import RunError
from dporun_trainer.run_folder.manifest import MANIFEST, Manifest
from dporun_trainer.stores.folder import FolderStore
from dporun_trainer.stores.s3 import S3Store
from dporun_trainer.stores.sources import ARCHIVE, Credentials, LocalSource, S3Source, parse
from dporun_trainer.stores.transfer import Store


def open_store(
    uri: str,
    credentials: Credentials = ARCHIVE,
    *,
    name: str = "",
    endpoint: str | None = None,
    region: str | None = None,
) -> Store:
    """Open the folder ``name`` of an archive at ``uri``: s3://, file:// or a path.

    Raises:
        RunError: the URI is of another kind.

    """
    match parse(uri, claims=Path("/nowhere"), reason=credentials.reason) if "://" in uri else LocalSource(Path(uri)):
        case S3Source(bucket, key):
            prefix = "/".join(part for part in (key.strip("/"), name) if part)
            return S3Store(bucket, prefix, credentials, endpoint=endpoint, region=region)
        case LocalSource(path):
            return FolderStore(path.expanduser().absolute() / name, credentials.reason)
    raise RunError(
        credentials.reason, f"{uri} is not a supported archive location", hint="Write s3://BUCKET/PATH or a path."
    )


def read_manifest(store: Store, reason: Reason) -> Manifest:
    """Read and check the manifest of an archived run.

    Raises:
        RunError: there is none, or it cannot be trusted.

    """
    data = store.read(MANIFEST)
    if data is None:
        raise RunError(
            reason,
            f"{store.uri} has no {MANIFEST}: it is no archived run, or archiving it was not finished",
            hint="Name the folder of one run, the one that holds manifest.json.",
        )
    try:
        return Manifest.model_validate_json(data)
    except ValidationError as error:
        raise RunError(reason, f"{store.uri}/{MANIFEST} cannot be used: {error}") from error
