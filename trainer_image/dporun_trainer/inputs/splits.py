"""Which files of a data set are a split, by the rules of the ``datasets`` library."""

import fnmatch
import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

import yaml

from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer.data.kinds import SUFFIXES, is_rows
from dporun_trainer.errors import RunError
from dporun_trainer.inputs.slices import Part, Slice


def choose(
    uri: str, names: Sequence[str], path: str, part: Part, card: dict[str, Any], *, split: str | None
) -> list[tuple[Slice, list[str]]]:
    """Choose the files that an address means: each slice with its files, in their order.

    Args:
        uri: the address, without its query.
        names: of the files there.
        path: one of them, a folder or a glob of them; all when empty.
        part: what the query asks for.
        card: YAML header of the README.
        split: the split that is meant when the query names none; None means all files.

    Raises:
        RunError: there are no such files, or no such split.

    """
    below = [name for name in names if not path or name.startswith(path + "/") or matches(path, name)]
    found = [path] if path in names else sorted(name for name in below if is_rows(name) and not _hidden(name))
    if not found:
        if any(name.endswith(".arrow") for name in below):
            raise RunError(
                Reason.DATASET_INVALID,
                f"{uri}: Arrow files, as Dataset.save_to_disk writes them, and nothing else that holds rows",
                hint="Load it with datasets.load_from_disk, and write it with Dataset.to_parquet or Dataset.to_json.",
            )
        raise RunError(
            Reason.DATASET_INVALID,
            f"{uri}: nothing there that holds rows",
            hint=f"Name a file, or a folder or glob of files of these kinds: {', '.join(SUFFIXES)}.",
        )
    slices = part.slices or ((Slice(split or "train"),) if split or part.config else ())
    if not slices:
        return [(Slice("train"), found)]
    return [
        (one, found)
        if found == [path] and one.split == "train"  # as datasets takes a single file
        else (one, data_files(uri, found, card, split=one.split, config=part.config))
        for one in slices
    ]


def split_glob(path: str) -> tuple[str, str] | None:
    """Take a path with wildcards apart: the folder before them, and the pattern; None when it has none."""
    parts = path.split("/")
    first = next((index for index, part in enumerate(parts) if set(part) & set("*[")), None)
    return None if first is None else ("/".join(parts[:first]), "/".join(parts[first:]))


def data_files(uri: str, files: Sequence[str], card: dict[str, Any], *, split: str, config: str | None) -> list[str]:
    """Find the files of one split, by the rules of the ``datasets`` library.

    A README that declares ``configs`` decides. Without one, the file or folder names do: ``train-00000-of-00002``,
    ``train.jsonl``, ``data/train/...``; files that name no split at all are the ``train`` split.

    Args:
        uri: of the data set, without a query.
        files: its files.
        card: YAML header of its README.
        split: name of the split.
        config: name of the config; the default one when None.

    Raises:
        RunError: no such config or split; the message lists those that there are.

    """
    names = [name for name in files if is_rows(name) and not _hidden(name)]
    splits = _declared(card, names, config, uri) or _by_name(names, config)
    chosen = splits.get(split, [])
    if not chosen:
        raise RunError(
            Reason.DATASET_INVALID,
            f"{uri} has no files of rows for split {split!r}" + (f" of config {config!r}" if config else ""),
            hint=f"It has the splits {', '.join(sorted(splits))}: write {uri}?split=NAME."
            if splits
            else f"Files of these kinds can be read: {', '.join(SUFFIXES)}.",
        )
    return sorted(chosen)


def read_card(readme: str) -> dict[str, Any]:
    """Read the YAML header of a README; empty when there is none, or none that can be read."""
    header = re.match(r"---\r?\n(.*?)\r?\n---", readme, re.DOTALL)
    try:
        card = yaml.safe_load(header[1]) if header else None
    except yaml.YAMLError:
        return {}
    return card if isinstance(card, dict) else {}


def _declared(card: dict[str, Any], names: list[str], config: str | None, uri: str) -> dict[str, list[str]]:
    """Splits of the ``configs`` section of a README; empty when it has none."""
    configs = {str(entry.get("config_name", "default")): entry for entry in card.get("configs") or []}
    if not configs:
        return {}
    defaults = [name for name, entry in configs.items() if entry.get("default")]
    name = config or (defaults or [name for name in configs if name == "default"] or list(configs))[0]
    if name not in configs or (config is None and len(configs) > 1 and not defaults and "default" not in configs):
        raise RunError(
            Reason.DATASET_INVALID,
            f"{uri} has " + (f"no config {config!r}" if config else "several configs and no default one"),
            hint=f"Write ?config=NAME with one of {', '.join(sorted(configs))}.",
        )
    entry = configs[name]
    base = str(entry.get("data_dir") or "").strip("/")
    declared = entry.get("data_files")
    if declared is None:
        below = [path for path in names if not base or path.startswith(base + "/")]
        return _by_name(below, None)
    if not isinstance(declared, list) or not all(isinstance(part, dict) for part in declared):
        declared = [{"split": "train", "path": declared}]
    splits: dict[str, list[str]] = {}
    for part in declared:
        patterns = part["path"] if isinstance(part["path"], list) else [part["path"]]
        for pattern in patterns:
            full = str(PurePosixPath(base) / pattern)
            splits.setdefault(str(part["split"]), []).extend(path for path in names if matches(full, path))
    return splits


def _by_name(names: list[str], config: str | None) -> dict[str, list[str]]:
    """Splits that the names of files and folders tell; ``config`` is a folder at the top."""
    if config is not None:
        names = [name for name in names if name.startswith(config + "/")]
    sharded: dict[str, list[str]] = {}
    for name in names:
        if match := re.match(r"(.+)-\d{5}-of-\d{5}", PurePosixPath(name).name):
            sharded.setdefault(match.group(1), []).append(name)
    if sharded:
        return sharded
    words = {"train": ("train", "training"), "test": ("test", "testing", "eval", "evaluation")}
    words["validation"] = ("validation", "valid", "dev", "val")
    splits: dict[str, list[str]] = {}
    for split, keys in words.items():
        pattern = re.compile(rf"(^|[-._ 0-9/])({'|'.join(keys)})([-._ 0-9/]|$)")
        if found := [name for name in names if pattern.search(name)]:
            splits[split] = found
    return splits or ({"train": names} if names else {})


def matches(pattern: str, path: str) -> bool:
    """Match as the shell does, where ``*`` stays in its folder and ``**`` does not."""
    expression = re.escape(pattern).replace(r"\*\*/", "(.*/)?").replace(r"\*\*", ".*").replace(r"\*", "[^/]*")
    return re.fullmatch(expression.replace(r"\?", "[^/]"), path) is not None or (
        "[" in pattern and fnmatch.fnmatchcase(path, pattern)
    )


def _hidden(name: str) -> bool:
    return any(part.startswith((".", "__")) for part in PurePosixPath(name).parts)
