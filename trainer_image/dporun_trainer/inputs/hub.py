"""The Hugging Face Hub: what a repository has, and how its files get here."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils.tqdm import tqdm

from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer.errors import RunError
from dporun_trainer.stores.sources import Credentials, HubSource
from dporun_trainer.stores.transfer import Meter, StoredFile

log = logging.getLogger(__name__)

logging.getLogger("httpx2").setLevel(logging.WARNING)  # or every request is a line of the log


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

    Not with ``snapshot_download``: it lists the repository once more, returns a folder with what happens to be there
    when the Hub does not answer, and tells no progress per file.

    Raises:
        RunError: as for list_files.

    """

    class Bar(tqdm):
        """Counts bytes and draws nothing."""

        def __init__(self, *arguments: Any, initial: float = 0, **options: Any):
            super().__init__(*arguments, **(options | {"disable": True}))  # type: ignore[no-untyped-call]
            self.update(initial)

        def update(self, n: float | None = 1) -> None:
            meter.add(int(n or 0))

        def update_transfer(self, n: float | None = 1) -> None:
            """Bytes that the Xet store has sent; they count when they are written. Without this they count twice."""

        def set_transfer_postfix_str(self, *_: Any, **__: Any) -> None:
            """The speed of that."""

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
