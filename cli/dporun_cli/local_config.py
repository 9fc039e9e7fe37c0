"""A manifest for the cluster, translated for this computer: folders for URIs, one node, processes that fit."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dporun_api.run_config import Identity, RunConfig, Topology
from dporun_api.translate import translate
from dporun_cli.manifest import Manifest, dotted

Folders = Mapping[str, Path]
"""Local folders (or files) by the beginning of the URIs that they stand for."""


class LocalConfigError(Exception):
    """The manifest is valid, but cannot run on this computer as asked.

    Attributes:
        problems: every problem, with its field or option.

    """

    def __init__(self, problems: list[str]):
        super().__init__("\n".join(problems))
        self.problems = problems


def parse_maps(maps: Sequence[str]) -> dict[str, Path]:
    """Read the values of ``--map``.

    Raises:
        LocalConfigError: one is not URI=PATH.

    """
    problems = [
        f"--map {text}: write URI=PATH, such as s3://bucket/prefix=./folder" for text in maps if "=" not in text
    ]
    if problems:
        raise LocalConfigError(problems)
    pairs = (text.rpartition("=") for text in maps)
    return {uri: Path(path).expanduser() for uri, _, path in pairs}


def local_config(manifest: Manifest, root: Path, folders: Folders, *, processes: int | None = None) -> RunConfig:
    """Build the RunConfig of a run on this computer.

    Args:
        manifest: the DPORun.
        root: folder of all runs.
        folders: replace URIs of the manifest.
        processes: training processes instead of those of the manifest; the effective batch stays the same.

    Raises:
        LocalConfigError: a URI names a claim of the cluster, a folder replaces nothing, the batch is not divisible by
            the processes, or the run to resume from is missing.

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
        problems.append(f"spec.checkpoints.resumeFrom.run: there is no folder {source_run}")
    document = config.model_dump()
    document["checkpoints"]["upload"] = False  # no volume is lost with a node: the run's folder is on this disk
    problems += _replace_all(document, folders, needed=_URI_FIELDS)
    asked = config.topology.world_size
    count = processes or asked
    # Forward passes per optimizer step, of all processes: they stay the same, and with them the effective batch.
    passes = config.training.gradient_accumulation_steps * asked
    if passes % count:
        problems.append(
            f"--processes {count}: an optimizer step of this manifest has {passes} forward passes, "
            f"which is not divisible by {count}; use a divisor of {passes}"
        )
    if problems:
        raise LocalConfigError(problems)
    return RunConfig.model_validate(
        document
        | {
            "image": None,
            "topology": Topology(processes_per_node=count, deepspeed=config.topology.deepspeed),
            "training": config.training.model_copy(update={"gradient_accumulation_steps": passes // count}),
        }
    )


def data_config(manifest: Manifest, folders: Folders, *, replaced: Collection[tuple[str, ...]] = ()) -> RunConfig:
    """Build the RunConfig of a run whose data alone is looked at on this computer.

    Args:
        manifest: the DPORun.
        folders: replace URIs of the manifest.
        replaced: fields whose URI is not read, such as ("dataset", "train").

    Raises:
        LocalConfigError: data or model are in a claim of the cluster, or a folder replaces nothing.

    """
    config = translate(manifest.spec, run=Identity(name=manifest.name))
    document = config.model_dump()
    needed = [field for field in _DATA_FIELDS if field not in replaced]
    if problems := _replace_all(document, folders, needed=needed):
        raise LocalConfigError(problems)
    return RunConfig.model_validate(document)


_DATA_FIELDS = (("model", "uri"), ("dataset", "train"), ("dataset", "validation"))
_URI_FIELDS = (
    *_DATA_FIELDS,
    ("evaluation", "general", "uri"),
    ("checkpoints", "resume_from"),
    ("archive", "uri"),
)


def _replace_all(document: dict[str, Any], folders: Folders, *, needed: Collection[tuple[str, ...]]) -> list[str]:
    """Replace every URI for which there is a folder, and return what is wrong with ``needed`` URIs and with folders."""
    used = {prefix for path, uri in _uris(document) for prefix in [_replace(document, path, uri, folders)] if prefix}
    problems = [f"--map {prefix}=...: matches no URI in the manifest" for prefix in folders if prefix not in used]
    return problems + [
        f"{dotted(('spec', *path))}: {uri} exists only in a cluster; give its local path: --map {uri}=PATH"
        for path, uri in _uris(document)
        if path in needed and uri.startswith("pvc://")
    ]


def _uris(document: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], str]]:
    for path in _URI_FIELDS:
        value: Any = document
        for step in path:
            value = value and value[step]
        if value:
            yield path, value


def _replace(document: dict[str, Any], path: tuple[str, ...], uri: str, folders: Folders) -> str | None:
    """Replace the URI at ``path`` by the folder of its longest matching prefix, and return that prefix."""
    matching = [prefix for prefix in folders if uri == prefix or uri.startswith(prefix.rstrip("/") + "/")]
    if not matching:
        return None
    prefix = max(matching, key=len)
    section = document
    for step in path[:-1]:
        section = section[step]
    section[path[-1]] = str(folders[prefix].absolute() / uri[len(prefix) :].lstrip("/"))
    return prefix
