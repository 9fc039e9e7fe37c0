"""``restore``: bring an archived run back, or the adapter in it, and check every file against the manifest."""

import dataclasses
import logging
from pathlib import Path

from dporun_api.files import read_json, sha256
from dporun_api.run_config import RunConfig
from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer.archiving.manifest import Manifest, ManifestFile, read_manifest
from dporun_trainer.errors import RunError
from dporun_trainer.prepared import ModelFacts
from dporun_trainer.stores.folder import FolderStore
from dporun_trainer.stores.s3 import S3Store
from dporun_trainer.stores.sources import ARCHIVE, Credentials, LocalSource, S3Source, parse
from dporun_trainer.stores.transfer import Meter, Store

log = logging.getLogger(__name__)

_ADAPTER = "final/"


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
    raise RunError(credentials.reason, f"{uri} is no place for archives", hint="Write s3://BUCKET/PATH or a path.")


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
    files = [file for file in manifest.files if file.path.startswith(only)]
    _copy(store, files, target, ARCHIVE.reason)
    return manifest


def fetch_adapter(config: RunConfig, model: ModelFacts, folder: Path) -> None:
    """Fetch the adapter that ``checkpoints.resumeFrom`` names, and check that it fits this run.

    Args:
        config: of the run.
        model: the run's base model.
        folder: for the adapter.

    Raises:
        RunError: there is no such adapter, it is damaged, or it belongs to another base model or another LoRA shape.

    """
    reason, uri = Reason.MODEL_INVALID, str(config.checkpoints.resume_from)
    place = config.archive
    store = open_store(
        uri,
        dataclasses.replace(ARCHIVE, reason=reason),
        endpoint=place.endpoint if place else None,
        region=place.region if place else None,
    )
    manifest = read_manifest(store, reason)
    files = [file for file in manifest.files if file.path.startswith(_ADAPTER)]
    if not files:
        raise RunError(reason, f"{uri} has no adapter: the run ended before it had one", hint="Name another run.")
    if manifest.model.fingerprint not in {None, model.fingerprint}:
        raise RunError(
            reason,
            f"the adapter in {uri} was trained on another base model: {_name(manifest)}",
            hint="Set model.uri (and model.revision) to that model.",
        )
    renamed = {file.path: file.path.removeprefix(_ADAPTER) for file in files}
    _copy(store, files, folder, reason, renamed)
    _check_shape(config, uri, read_json(folder / "adapter_config.json"))


def _copy(
    store: Store, files: list[ManifestFile], target: Path, reason: Reason, names: dict[str, str] | None = None
) -> None:
    meter = Meter("restored", len(files), sum(file.bytes for file in files))
    for file in files:
        path = target / (names or {}).get(file.path, file.path)
        if path.exists():
            if not path.is_file() or path.stat().st_size != file.bytes or sha256(path) != file.sha256:
                raise RunError(
                    reason, f"{path} is in the way: it has other content", hint="Restore to an empty folder."
                )
            meter.add(file.bytes)
        else:
            found = store.download(file.path, path, meter.add)
            if found != file.sha256:
                path.unlink()
                raise RunError(
                    reason,
                    f"{store.uri}/{file.path} is damaged: its SHA-256 is {found}, the manifest says {file.sha256}",
                    hint="Restore an earlier version of this object, if the bucket keeps them.",
                )
        meter.file()


def _check_shape(config: RunConfig, uri: str, adapter: dict[str, object]) -> None:
    """An adapter keeps its shape, so a run that asks for another one asks for something else."""
    wanted = {"r": ("lora.rank", config.lora.rank), "lora_alpha": ("lora.alpha", config.lora.alpha)}
    for key, (field, value) in wanted.items():
        if adapter.get(key) != value:
            raise RunError(
                Reason.INVALID_SPEC,
                f"{field} is {value}, but the adapter in {uri} has {adapter.get(key)}",
                hint=f"Set {field} to {adapter.get(key)}: an adapter that is trained further keeps its shape.",
            )
    targets = config.lora.target_modules
    names = adapter.get("target_modules")
    if targets != ("all-linear",) and isinstance(names, list) and set(names) != set(targets):
        raise RunError(
            Reason.INVALID_SPEC,
            f"lora.targetModules is {', '.join(targets)}, but the adapter in {uri} has {', '.join(sorted(names))}",
            hint="Set lora.targetModules to the adapter's, or to [all-linear] to take them as they are.",
        )


def _name(manifest: Manifest) -> str:
    return manifest.model.uri + (f" at {manifest.model.revision}" if manifest.model.revision else "")
