"""The adapter of an archived run that a new run starts from."""

import dataclasses
from pathlib import Path

from dporun_api.files import read_json
from dporun_api.run_config import RunConfig
from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer.adapters import require_same_shape
from dporun_trainer.errors import RunError
from dporun_trainer.run_folder.manifest import Manifest
from dporun_trainer.run_folder.prepared import ModelFacts
from dporun_trainer.stores.archive_store import open_store, read_manifest
from dporun_trainer.stores.restore import copy_files
from dporun_trainer.stores.sources import ARCHIVE


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
    files = manifest.adapter()
    if not files:
        raise RunError(reason, f"{uri} has no adapter: the run ended before it had one", hint="Name another run.")
    if manifest.model.fingerprint not in {None, model.fingerprint}:
        raise RunError(
            reason,
            f"the adapter in {uri} was trained on another base model: {_name(manifest)}",
            hint="Set model.uri (and model.revision) to that model.",
        )
    copy_files(store, files, folder, reason)
    require_same_shape(config.lora, read_json(folder / "adapter_config.json"), uri)


def _name(manifest: Manifest) -> str:
    return manifest.model.uri + (f" at {manifest.model.revision}" if manifest.model.revision else "")
