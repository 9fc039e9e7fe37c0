"""Where model and data come from: URIs, and the credentials that open them."""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from dporun_api.pod import SecretPrefix
from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer.errors import RunError

_HUB = re.compile(
    r"hf://(datasets/(?=[^/]+/[^/]))?(?P<repo>[^/@?]+(/[^/@?]+)?)(@(?P<revision>[^/?]+))?(/(?P<path>[^?]*[^?/]))?/?"
)
"""Addresses of the Hub, as huggingface_hub's HfFileSystem writes them as well."""


@dataclass(frozen=True)
class HubSource:
    """A repository of the Hugging Face Hub, or what ``path`` names in it: a file, a folder, a glob."""

    repo: str
    path: str = ""
    revision: str | None = None


@dataclass(frozen=True)
class S3Source:
    """An object of S3, or all objects below a prefix."""

    bucket: str
    key: str


@dataclass(frozen=True)
class LocalSource:
    """A file or folder that can be used where it is; where it is in a claim, ``claim`` is that claim's root."""

    path: Path
    claim: Path | None = None


Source = HubSource | S3Source | LocalSource


@dataclass(frozen=True)
class Credentials:
    """The environment variables that one Secret of the run provides.

    The pod of a run may hold the Secrets of its model, its data set and its archive, with the same keys in each; they
    are kept apart by a prefix (``envFrom[].prefix``): ``MODEL_AWS_ACCESS_KEY_ID``. Without a prefixed variable, the
    plain one counts, as everywhere else.
    """

    where: str
    """Where the Secret is named: ``spec.model.secretRef``."""
    prefix: str
    reason: Reason
    """What it means for the run that something behind these credentials cannot be had."""
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)

    def get(self, name: str) -> str | None:
        """Value of the variable ``name``, or None."""
        return self.environment.get(self.prefix + name) or self.environment.get(name) or None

    def together(self, *names: str) -> list[str | None]:
        """Values of variables that belong together: all prefixed, or all plain, by what the first one is."""
        prefix = self.prefix if self.environment.get(self.prefix + names[0]) else ""
        return [self.environment.get(prefix + name) or None for name in names]


MODEL = Credentials("spec.model.secretRef", SecretPrefix.MODEL, Reason.MODEL_INVALID)
DATASET = Credentials("spec.dataset.secretRef", SecretPrefix.DATASET, Reason.DATASET_INVALID)
ARCHIVE = Credentials("spec.archive.secretRef", SecretPrefix.ARCHIVE, Reason.ARCHIVE_FAILED)


def parse(uri: str, *, claims: Path, reason: Reason) -> Source:
    """Understand a URI of the RunConfig.

    Args:
        uri: hf://, s3://, pvc://, file:// or a path; without a query.
        claims: folder below which claims are mounted; pvc://CLAIM/PATH is ``claims/CLAIM/PATH``.
        reason: of the error, where the URI means nothing.

    Raises:
        RunError: the URI is malformed, or its path leaves the claim (by ``..`` or a symbolic link).

    """
    if "://" not in uri:
        return LocalSource(Path(uri).expanduser().absolute())
    parts = urlsplit(uri)
    match parts.scheme:
        case "hf":
            match = _HUB.fullmatch(uri)
            if match is None:
                raise RunError(
                    reason,
                    f"cannot understand {uri}",
                    hint="Write hf://OWNER/NAME, for data also hf://OWNER/NAME?split=train&config=NAME or "
                    "hf://datasets/OWNER/NAME/FILES.",
                )
            revision = unquote(match["revision"]) if match["revision"] else None
            return HubSource(match["repo"], match["path"] or "", revision)
        case "s3":
            if not parts.netloc:
                raise RunError(reason, f"cannot understand {uri}: no bucket", hint="Write s3://BUCKET/PATH.")
            return S3Source(parts.netloc, uri.split("://", 1)[1].partition("/")[2])
        case "pvc":
            root = claims / parts.netloc
            return LocalSource(inside(root, uri.split("://", 1)[1].partition("/")[2], uri, reason), root)
        case "file":
            return LocalSource(Path(unquote(parts.path)))
    raise RunError(reason, f"cannot understand {uri}", hint="Write hf://, s3://, pvc://, file:// or a path.")


def inside(root: Path, relative: str, uri: str, reason: Reason) -> Path:
    """Resolve ``relative`` below ``root``, symbolic links and all.

    Raises:
        RunError: the claim is not mounted, or the path leads out of ``root``.

    """
    if root.name in {"", ".", ".."} or not root.is_dir():
        raise RunError(reason, f"{uri}: no claim named {root.name!r} is mounted", hint="Check the claim's name.")
    path = (root / relative.lstrip("/")).resolve()
    if not path.is_relative_to(root.resolve()):
        raise RunError(
            reason,
            f"{uri} leads out of its claim, to {path}",
            hint="Use a path without '..' and without symbolic links to other file systems.",
        )
    return path


def require_there(source: LocalSource, uri: str, reason: Reason) -> None:
    """Make sure that a local file or folder exists.

    Raises:
        RunError: it does not.

    """
    if not source.path.exists():
        raise RunError(reason, f"{uri}: {source.path} does not exist", hint="Check the path, and the claim it is in.")


def files_below(folder: Path) -> Iterator[str]:
    """List the files below a folder by their paths in it; hidden ones and linked folders are left out."""
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        below = Path(place).relative_to(folder)
        yield from ((below / name).as_posix() for name in sorted(files) if not name.startswith("."))


def require_inside(path: Path, source: LocalSource, uri: str, reason: Reason) -> None:
    """Refuse a symbolic link that leads out of the claim of ``source``.

    Raises:
        RunError: ``path`` is one.

    """
    if source.claim is not None and not path.resolve().is_relative_to(source.claim.resolve()):
        raise RunError(reason, f"{uri}: {path.name} is a symbolic link that leads out of its claim")
