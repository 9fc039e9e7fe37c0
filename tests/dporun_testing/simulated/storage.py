"""What is on volumes and in S3: checkpoints and archives, reduced to what may be lost."""

from dataclasses import dataclass, field

ADAPTER = "best/adapter_model.safetensors"
MANIFEST = "manifest.json"
UPLOADED = "checkpoint-"
"""Begin of the names of checkpoints that were uploaded while training went on."""


@dataclass
class Folder:
    """The folder of a run on a volume."""

    prepared: bool = False
    """Whether model and data are there."""
    checkpoints: list[int] = field(default_factory=list)
    """Steps of the complete ones."""
    succeeded: bool = False
    passed: bool = False
    manifest: str = ""
    """Copy of that of the archive."""

    @property
    def files(self) -> dict[str, str]:
        """What is archived: contents by name."""
        best = {ADAPTER: f"adapter of step {max(self.checkpoints)}"} if self.checkpoints else {}
        return {"report.md": "trained" if self.succeeded else "did not finish", **best}


@dataclass
class Storage:
    """Volumes by name of their PersistentVolume, each with its runs' folders; archives by URI."""

    volumes: dict[str, dict[str, Folder]] = field(default_factory=dict)
    archives: dict[str, dict[str, str]] = field(default_factory=dict)
    refusing: bool = False
    """Whether S3 answers nobody."""
    ever_saved: bool = False
    """Whether there was a complete checkpoint at any time."""

    def save(self, folder: Folder, step: int) -> None:
        """Save a checkpoint."""
        self.ever_saved = True
        if step not in folder.checkpoints:
            folder.checkpoints.append(step)

    def folder(self, volume: str, run: str) -> Folder:
        """The folder of a run on a volume, made when it is not there."""
        return self.volumes.setdefault(volume, {}).setdefault(run, Folder())

    def uploaded(self, uri: str) -> list[int]:
        """Steps of the checkpoints that were uploaded while training went on."""
        names = self.archives.get(uri, {})
        return [int(name.removeprefix(UPLOADED)) for name in names if name.startswith(UPLOADED)]

    def holds_adapter(self, uri: str) -> bool:
        """Whether the manifest of an archive verifies byte by byte and lists an adapter."""
        archive = self.archives.get(uri, {})
        listed = parse(archive[MANIFEST]) if MANIFEST in archive else {}
        return ADAPTER in listed and all(archive.get(name) == content for name, content in listed.items())


def manifest(files: dict[str, str]) -> str:
    """Content of the manifest that lists ``files``."""
    return "\n".join(f"{name}: {files[name]}" for name in sorted(files))


def parse(text: str) -> dict[str, str]:
    """The files that a manifest lists."""
    return dict(line.split(": ", 1) for line in text.splitlines())
