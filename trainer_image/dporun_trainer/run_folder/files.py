"""One JSON document of a run: read with its model or not at all, written whole or not at all."""

from pathlib import Path
from typing import Generic, TypeVar

from pydantic import BaseModel, ValidationError

from dporun_api.files import write_text

Content = TypeVar("Content", bound=BaseModel)


class JsonFile(Generic[Content]):
    """A file that holds one ``model`` as JSON.

    Attributes:
        path: of the file, whether it exists or not.

    """

    def __init__(self, path: Path, model: type[Content], *, exclude_none: bool = False, exclude_unset: bool = False):
        self.path = path
        self._model = model
        self._exclude_none = exclude_none
        self._exclude_unset = exclude_unset

    def load(self) -> Content:
        """Read the file.

        Raises:
            FileNotFoundError: there is none.
            OSError: it cannot be read.
            ValidationError: it holds something else.

        """
        return self._model.model_validate_json(self.path.read_bytes())

    def read(self) -> Content | None:
        """Read the file; None when it is absent, torn, or of another version."""
        try:
            return self.load()
        except (OSError, ValidationError):
            return None

    def encode(self, content: Content) -> str:
        """Text of the file for ``content``."""
        text = content.model_dump_json(
            by_alias=True, indent=2, exclude_none=self._exclude_none, exclude_unset=self._exclude_unset
        )
        return f"{text}\n"

    def write(self, content: Content) -> None:
        """Replace the file atomically.

        Raises:
            OSError: the folder is not writable or the disk is full; the old content stays.

        """
        write_text(self.path, self.encode(content))

    def delete(self) -> None:
        """Delete the file, if there is one."""
        self.path.unlink(missing_ok=True)
