"""The log history of a run: one JSON object per line, appended, so that logging costs the same at every step."""

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic_core import to_json

from dporun_api import run_folder as names
from dporun_api.files import sync_folder, write_text

Entry = Mapping[str, Any]
"""One log entry of transformers: ``step``, ``epoch`` and metrics by name."""


class LogHistory:
    """log_history.jsonl of a run's ``directory``: every log entry over all attempts, in order.

    One process appends; any number read. JSON has no NaN, so NaN and the infinities are the strings "NaN", "Infinity"
    and "-Infinity". The first version kept one JSON list, log_history.json, which is read where there is no other.
    """

    def __init__(self, directory: Path):
        self._file = directory / names.LOG_HISTORY
        self._list = directory / names.OLD_LOG_HISTORY

    @property
    def path(self) -> Path:
        """The file that holds the history."""
        return self._list if self._list.is_file() and not self._file.is_file() else self._file

    def load(self) -> list[dict[str, Any]]:
        """Read every entry. A last line that is not whole is one that a crash tore; it is ignored.

        Raises:
            FileNotFoundError: nothing was logged.
            OSError: the file cannot be read.
            ValueError: it holds something else.

        """
        path = self.path
        text = path.read_text(encoding="utf-8")
        entries = json.loads(text) if path == self._list else _lines(text)
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise ValueError("it does not hold a list of log entries")
        return entries

    def replace(self, entries: Sequence[Entry]) -> None:
        """Make ``entries`` the whole history, atomically: an attempt begins with those of the checkpoint it resumes.

        Raises:
            OSError: the disk is full; the old history stays.

        """
        write_text(self._file, _encode(entries).decode())
        self._list.unlink(missing_ok=True)

    def append(self, entries: Sequence[Entry]) -> None:
        """Add ``entries`` durably.

        Raises:
            OSError: the disk is full; a part of a line may be left, which readers ignore.

        """
        with self._file.open("ab") as file:
            file.write(_encode(entries))
            file.flush()
            os.fsync(file.fileno())
        sync_folder(self._file.parent)


def _encode(entries: Sequence[Entry]) -> bytes:
    return b"".join(to_json(dict(entry), inf_nan_mode="strings") + b"\n" for entry in entries)


def _lines(text: str) -> list[Any]:
    *whole, last = text.split("\n")
    entries = [json.loads(line) for line in whole]
    with contextlib.suppress(ValueError):
        entries.append(json.loads(last))
    return entries
