"""checkpoints.json: which checkpoints of a run are whole in its archive, before the manifest says what all of it is."""

from typing import Self

from pydantic import Field, model_validator

from dporun_api import run_folder as names
from dporun_api.document import Document, Finite
from dporun_api.run_config import Identity
from dporun_trainer.run_folder.manifest import ManifestFile

CHECKPOINT_INDEX = str(names.CHECKPOINT_INDEX)
"""Its path in an archive."""


class UploadedCheckpoint(Document):
    """A checkpoint that is whole in the archive."""

    step: int = Field(ge=0)
    """Optimizer step at which it was saved."""
    eval_loss: Finite | None = None
    """Validation loss at that step."""
    files: tuple[ManifestFile, ...] = Field(min_length=1)
    """Its files, with their paths in the archive."""

    @model_validator(mode="after")
    def _stays_in_its_folder(self) -> Self:
        for file in self.files:
            if not file.path.startswith(f"{self.name}/"):
                raise ValueError(f"{file.path} is no file of {self.name}")
        return self

    @property
    def name(self) -> str:
        """Its folder."""
        return f"{names.CHECKPOINT_PREFIX}{self.step}"


class CheckpointIndex(Document):
    """The checkpoints of one run in its archive; replaced atomically, so what it names is there."""

    run: Identity
    checkpoints: tuple[UploadedCheckpoint, ...] = ()
    """In order of their steps."""

    @property
    def newest(self) -> UploadedCheckpoint | None:
        """The one to resume from."""
        return max(self.checkpoints, key=lambda one: one.step, default=None)

    @property
    def best(self) -> UploadedCheckpoint | None:
        """The one with the lowest validation loss, of equal ones the earliest; the newest when none was validated."""
        validated = [(one.eval_loss, one.step, one) for one in self.checkpoints if one.eval_loss is not None]
        return min(validated, key=lambda one: one[:2])[2] if validated else self.newest

    def get(self, step: int) -> UploadedCheckpoint | None:
        """The checkpoint of ``step``."""
        return next((one for one in self.checkpoints if one.step == step), None)

    def having(self, checkpoint: UploadedCheckpoint) -> Self:
        """The same with ``checkpoint``, which replaces the one of its step."""
        others = (one for one in self.checkpoints if one.step != checkpoint.step)
        ordered = sorted((*others, checkpoint), key=lambda one: one.step)
        return self.model_copy(update={"checkpoints": tuple(ordered)})

    def only(self, steps: set[int]) -> Self:
        """The same without the checkpoints of other steps."""
        return self.model_copy(update={"checkpoints": tuple(one for one in self.checkpoints if one.step in steps)})


def is_checkpoint_file(path: str) -> bool:
    """Whether ``path`` in an archive is a file of a checkpoint."""
    return path.startswith(names.CHECKPOINT_PREFIX) and "/" in path
