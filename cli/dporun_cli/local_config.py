"""A manifest for the cluster, translated for this computer: folders for URIs, one node, processes that fit."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dporun_api.run_config import Identity, RunConfig, Topology
from dporun_api.translate import translate
from dporun_cli.manifest import Manifest

Folders = Mapping[str, Path]
"""Local folders (or files) by the beginning of the URIs that they stand for."""


class LocalConfigError(Exception):
    """The manifest is right but cannot run on this computer as it is asked to.

    Attributes:
        problems: all that was found, each with its field.

    """

    def __init__(self, problems: list[str]):
        super().__init__("\n".join(problems))
        self.problems = problems


def local_config(manifest: Manifest, root: Path, folders: Folders, *, processes: int | None = None) -> RunConfig:
    """Build the RunConfig of a run on this computer.

    Args:
        manifest: the DPORun.
        root: folder of all runs.
        folders: stand in for URIs of the manifest.
        processes: training processes instead of those of the manifest; the effective batch stays the same.

    Raises:
        LocalConfigError: a claim of the cluster is named, the batch cannot be divided so, a run to resume is missing.

    """
    source = manifest.spec.checkpoints.resume_from
    source_run = root / source.run if source and source.run else None
    config = translate(
        manifest.spec,
        run=Identity(name=manifest.name),
        manifest=manifest.document,
        source=str(source_run) if source_run else None,
    )
    problems = []
    if source_run and not source_run.is_dir():
        problems.append(f"spec.checkpoints.resumeFrom.run: there is no {source_run}")
    document = config.model_dump()
    used = {prefix for path, uri in _uris(document) for prefix in [_put(document, path, uri, folders)] if prefix}
    problems += [f"--map {prefix}=...: no URI of the manifest begins so" for prefix in folders if prefix not in used]
    problems += [
        f"{_words(path)}: {uri} is in a cluster; say where it is here: --map {uri}=PATH"
        for path, uri in _uris(document)
        if uri.startswith("pvc://")
    ]
    wanted = config.topology.world_size
    count = processes or wanted
    steps, rest = divmod(config.training.gradient_accumulation_steps * wanted, count)
    if rest:
        problems.append(
            f"--processes {count}: {config.training.gradient_accumulation_steps} accumulation steps of {wanted} "
            f"processes cannot be divided among {count}; take a divisor of "
            f"{config.training.gradient_accumulation_steps * wanted}"
        )
    if problems:
        raise LocalConfigError(problems)
    return RunConfig.model_validate(
        document
        | {
            "image": None,
            "topology": Topology(processes_per_node=count, deepspeed=config.topology.deepspeed),
            "training": config.training.model_copy(update={"gradient_accumulation_steps": steps}),
        }
    )


_URI_FIELDS = (
    ("model", "uri"),
    ("dataset", "train"),
    ("dataset", "validation"),
    ("evaluation", "general", "uri"),
    ("checkpoints", "resume_from"),
    ("archive", "uri"),
)


def _words(path: tuple[str, ...]) -> str:
    return ".".join(("spec", *path))


def _uris(document: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], str]]:
    for path in _URI_FIELDS:
        value: Any = document
        for step in path:
            value = value and value[step]
        if value:
            yield path, value


def _put(document: dict[str, Any], path: tuple[str, ...], uri: str, folders: Folders) -> str | None:
    """Replace the URI at ``path`` by the folder of the longest prefix that fits, and return that prefix."""
    fitting = [prefix for prefix in folders if uri == prefix or uri.startswith(prefix.rstrip("/") + "/")]
    if not fitting:
        return None
    prefix = max(fitting, key=len)
    section = document
    for step in path[:-1]:
        section = section[step]
    section[path[-1]] = str(folders[prefix].absolute() / uri[len(prefix) :].lstrip("/"))
    return prefix
