"""The Hugging Face Hub: a model's files, and the files of one split of a data set."""

import fnmatch
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Self

import httpx2
import yaml
from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer.errors import RunError
from dporun_trainer.stores.sources import Credentials, HubSource
from dporun_trainer.stores.transfer import Meter, StoredFile

log = logging.getLogger(__name__)

logging.getLogger("httpx2").setLevel(logging.WARNING)  # or every request is a line of the log

DATA_SUFFIXES = (".parquet", ".jsonl", ".jsonl.gz", ".json", ".json.gz", ".ndjson")


@dataclass(frozen=True)
class Listing:
    """The files of a repository at one commit."""

    repo: str
    kind: str
    commit: str
    files: tuple[StoredFile, ...]


def list_files(source: HubSource, kind: str, credentials: Credentials) -> Listing:
    """Resolve the revision to a commit, and list the files of that commit.

    Args:
        source: the repository.
        kind: ``model`` or ``dataset``.
        credentials: with HF_TOKEN, where the repository needs one; HF_ENDPOINT names another Hub.

    Raises:
        RunError: no such repository or revision, no access, or no answer.

    """
    with _explained(source.repo, kind, credentials):
        api = HfApi(endpoint=credentials.get("HF_ENDPOINT"), token=credentials.get("HF_TOKEN"))
        info: Any = api.repo_info(
            source.repo, repo_type=kind, revision=source.revision or "main", files_metadata=True, timeout=30
        )
    files = tuple(StoredFile(entry.rfilename, entry.size or 0) for entry in info.siblings or ())
    return Listing(source.repo, kind, info.sha, files)


def download(listing: Listing, names: Sequence[str], folder: Path, credentials: Credentials, meter: Meter) -> None:
    """Download ``names`` of ``listing`` to ``folder``; what is already there, whole and of this commit, stays.

    Raises:
        RunError: as for list_files.

    """

    class Bar(_Silent):
        count = meter.add

    for name in names:
        log.debug("downloading %s of %s", name, listing.repo)
        with _explained(listing.repo, listing.kind, credentials):
            hf_hub_download(
                listing.repo,
                name,
                repo_type=listing.kind,
                revision=listing.commit,
                local_dir=folder,
                endpoint=credentials.get("HF_ENDPOINT"),
                token=credentials.get("HF_TOKEN"),
                tqdm_class=Bar,
            )
        meter.file()


def data_files(listing: Listing, card: dict[str, Any], *, split: str, config: str | None) -> list[str]:
    """Find the files of one split, by the rules of the ``datasets`` library.

    A README that declares ``configs`` decides. Without one, the file or folder names do: ``train-00000-of-00002``,
    ``train.jsonl``, ``data/train/...``; files that name no split at all are the ``train`` split.

    Args:
        listing: of the repository.
        card: YAML header of its README.
        split: name of the split.
        config: name of the config; the default one when None.

    Raises:
        RunError: no such config or split; the message lists those that there are.

    """
    names = [file.name for file in listing.files if file.name.endswith(DATA_SUFFIXES) and not _hidden(file.name)]
    splits = _declared(card, names, config, listing.repo) or _by_name(names, config)
    chosen = splits.get(split, [])
    if not chosen:
        raise RunError(
            Reason.DATASET_INVALID,
            f"hf://{listing.repo} has no JSONL or Parquet files for split {split!r}"
            + (f" of config {config!r}" if config else ""),
            hint=f"It has the splits {', '.join(sorted(splits))}: write hf://{listing.repo}?split=NAME."
            if splits
            else f"Files of these kinds can be read: {', '.join(DATA_SUFFIXES)}.",
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


def _declared(card: dict[str, Any], names: list[str], config: str | None, repo: str) -> dict[str, list[str]]:
    """Splits of the ``configs`` section of a README; empty when it has none."""
    configs = {str(entry.get("config_name", "default")): entry for entry in card.get("configs") or []}
    if not configs:
        return {}
    defaults = [name for name, entry in configs.items() if entry.get("default")]
    name = config or (defaults or [name for name in configs if name == "default"] or list(configs))[0]
    if name not in configs or (config is None and len(configs) > 1 and not defaults and "default" not in configs):
        raise RunError(
            Reason.DATASET_INVALID,
            f"hf://{repo} has " + (f"no config {config!r}" if config else "several configs and no default one"),
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
            splits.setdefault(str(part["split"]), []).extend(path for path in names if _glob(full, path))
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


def _glob(pattern: str, path: str) -> bool:
    """Match as the shell does, where ``*`` stays in its folder and ``**`` does not."""
    expression = re.escape(pattern).replace(r"\*\*/", "(.*/)?").replace(r"\*\*", ".*").replace(r"\*", "[^/]*")
    return re.fullmatch(expression.replace(r"\?", "[^/]"), path) is not None or (
        "[" in pattern and fnmatch.fnmatchcase(path, pattern)
    )


def _hidden(name: str) -> bool:
    return any(part.startswith((".", "__")) for part in PurePosixPath(name).parts)


class _Silent:
    """What huggingface_hub takes for a progress bar: hands the bytes on and prints nothing."""

    count: Any = staticmethod(lambda _: None)

    def __init__(self, *_: Any, initial: float = 0, **__: Any):
        self.n = 0.0
        self.total: float | None = None
        self.update(initial)

    def update(self, count: float | None = 1) -> None:
        """Count bytes."""
        self.n += count or 0
        type(self).count(int(count or 0))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __getattr__(self, _: str) -> Any:  # close, refresh, set_description, …
        return lambda *_, **__: None


@contextmanager
def _explained(repo: str, kind: str, credentials: Credentials) -> Iterator[None]:
    """Turn errors of the Hub into ones that say what to check."""
    uri = f"hf://{repo}"
    endpoint = credentials.get("HF_ENDPOINT") or "the Hub"
    token = (
        f"Check HF_TOKEN in the Secret of {credentials.where}"
        if credentials.get("HF_TOKEN")
        else (f"If it is private, name a Secret with HF_TOKEN in {credentials.where}")
    )
    try:
        yield
    except GatedRepoError as error:
        raise RunError(
            credentials.reason,
            f"{uri} is gated: its owner must grant access first",
            hint=f"Accept its terms on the Hub. {token}.",
        ) from error
    except RevisionNotFoundError as error:
        raise RunError(credentials.reason, f"{uri}: {endpoint} has no such revision of it") from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise RunError(
            credentials.reason, f"{uri}: {endpoint} has no such {kind}, or shows it to others only", hint=f"{token}."
        ) from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status in {401, 403}:
            raise RunError(
                credentials.reason, f"{uri}: access denied by {endpoint} (HTTP {status})", hint=f"{token}."
            ) from error
        if status == 404:
            raise RunError(credentials.reason, f"{uri}: {error}") from error
        raise RunError(Reason.TRAINER_ERROR, f"{uri}: {endpoint} answered HTTP {status}") from error
    except (LocalEntryNotFoundError, httpx2.TransportError) as error:
        cause = error.__cause__ or error
        raise RunError(
            Reason.TRAINER_ERROR,
            f"{uri}: {endpoint} cannot be reached ({type(cause).__name__}: {cause})",
            hint="Check the pod's network, and HF_ENDPOINT where a mirror is used.",
        ) from error
