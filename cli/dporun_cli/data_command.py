"""The command line's side of ``dporun data``: the words for the trainer's command."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dporun_cli.local_config import Folders, data_config
from dporun_cli.manifest import Manifest


@dataclass(frozen=True)
class Given:
    """What is given by hand, and wins over the manifest; None or False is not given."""

    train: str | None
    validation: str | None
    model: str | None
    options: Mapping[str, object]
    """Other flags of the trainer's command, with their values."""
    switches: Mapping[str, bool]
    """Those without a value."""

    def words(self) -> list[str]:
        """Arguments of the trainer's command."""
        options = {"--validation": self.validation, "--model": self.model, **self.options}
        pairs = [word for flag, value in options.items() if value is not None for word in (flag, str(value))]
        switched = [flag for flag, on in self.switches.items() if on]
        return [*([self.train] if self.train is not None else []), *pairs, *switched]

    def replaced(self) -> set[tuple[str, str]]:
        """Fields of the manifest that therefore are not read."""
        fields = {
            ("dataset", "train"): self.train,
            ("dataset", "validation"): self.validation,
            ("model", "uri"): self.model or self.switches.get("--no-model"),
        }
        return {field for field, value in fields.items() if value}


def run(manifest: Manifest | None, folders: Folders, given: Given, trainer: Callable[[Sequence[str]], int]) -> int:
    """Look at the data of ``manifest``, or at what is given alone.

    Args:
        manifest: of the run, as ``dporun run --local`` reads it.
        folders: replace URIs of the manifest.
        given: wins over the manifest.
        trainer: runs a command of the trainer, and returns its exit code.

    Raises:
        LocalConfigError: data or model of the manifest cannot be had on this computer.

    """
    if manifest is None:
        return trainer(["data", *given.words()])
    config = data_config(manifest, folders, replaced=given.replaced())
    with tempfile.TemporaryDirectory(prefix="dporun-data-") as folder:
        path = Path(folder) / "run.json"
        path.write_text(config.to_json(), encoding="utf-8")
        return trainer(["data", *given.words(), "--config", str(path)])
