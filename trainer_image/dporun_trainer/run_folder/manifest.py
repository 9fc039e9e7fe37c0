"""manifest.json: what an archived run consists of. Written last, it makes an archive complete."""

from pathlib import PurePosixPath

from pydantic import Field, field_validator

from dporun_api import run_folder as names
from dporun_api.document import Document
from dporun_api.results import BestCheckpoint
from dporun_api.run_config import Identity

MANIFEST = str(names.MANIFEST)
"""Its path in an archive."""


class ManifestFile(Document):
    """One file of an archive."""

    path: str
    """Relative to the manifest's folder."""
    bytes: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")

    @field_validator("path")
    @classmethod
    def _stays_inside(cls, path: str) -> str:
        parts = PurePosixPath(path).parts
        if not parts or ".." in parts or PurePosixPath(path).is_absolute() or "\\" in path or "\0" in path:
            raise ValueError(f"{path!r} leads out of the archive")
        return path


class ArchivedBase(Document):
    """The base model that the run's adapter belongs to."""

    uri: str
    revision: str | None = None
    """Commit on the Hub."""
    fingerprint: str | None = None
    """See model.fingerprint."""


class Manifest(Document):
    """Every file of an archived run, with its checksum."""

    version: int = Field(1, ge=1, le=1)
    run: Identity
    created: str
    """UTC, ISO 8601."""
    model: ArchivedBase
    best_checkpoint: BestCheckpoint | None = None
    tools: dict[str, str] = Field(default_factory=dict)
    """Versions of the software that made the archive."""
    files: tuple[ManifestFile, ...]

    def adapter(self) -> dict[str, ManifestFile]:
        """Files of the run's adapter, by their names in its folder; none where the run ended before it had one."""
        prefix = f"{names.FINAL}/"
        return {file.path.removeprefix(prefix): file for file in self.files if file.path.startswith(prefix)}
