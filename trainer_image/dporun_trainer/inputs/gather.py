"""From files of rows to pairs: what can be seen of the data before there is a tokenizer. No heavy imports."""

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from dporun_api.files import sync_folder
from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer.data.formats import Options, recognise_first
from dporun_trainer.data.pairs import Pair, RowError, RowSkipped
from dporun_trainer.errors import RunError
from dporun_trainer.inputs.lint import Lint
from dporun_trainer.inputs.source import Source

_REPORT_SECONDS = 5.0


@dataclass(frozen=True)
class Gathered:
    """The pairs of a source, before any tokenizer has seen them.

    Attributes:
        source: where they are from.
        path: JSONL of them, each with the file and number of its row.
        count: how many there are.
        lint: what was seen of them.

    """

    source: Source
    path: Path
    count: int
    lint: Lint

    def pairs(self) -> Iterator[Pair]:
        """Read the pairs again, as a stream."""
        with self.path.open(encoding="utf-8") as lines:
            for line in lines:
                columns = json.loads(line)
                yield Pair(**columns | {"remarks": tuple(columns["remarks"])})


class Ticker:
    """Reports progress every few seconds."""

    def __init__(self, on_progress: Callable[[str], None]):
        self._on_progress = on_progress
        self._reported = time.monotonic()

    def tick(self, line: str) -> None:
        """Report ``line`` when it is time again."""
        if time.monotonic() - self._reported >= _REPORT_SECONDS:
            self._reported = time.monotonic()
            self._on_progress(line)


def gather(
    source: Source,
    path: Path,
    options: Options,
    *,
    max_length: int,
    on_progress: Callable[[str], None] = lambda _: None,
) -> Gathered:
    """Read every row of ``source``, and write the pairs to ``path``.

    Args:
        source: files of rows.
        path: file to write.
        options: what the user says about the rows.
        max_length: dpo.maxLength, in tokens.
        on_progress: called with lines of progress.

    Raises:
        RunError: rows that cannot be used, or none; the message names them.

    """
    lint = Lint(source.uri, max_length)
    lint.files.extend(file.name for file in source.files)
    ticker = Ticker(on_progress)
    count = 0
    with writer(path) as out:
        form, rows = recognise_first(source.rows(ticker.tick), options)
        lint.form = form.title
        on_progress(f"{source.uri} is read as {form.title}")
        for row in rows:
            lint.rows += 1
            try:
                for pair in form.pairs(row):
                    lint.read(pair)
                    out.write(json.dumps(asdict(pair), ensure_ascii=False) + "\n")
                    count += 1
            except RowSkipped as skipped:
                lint.skip(row.file, row.number, str(skipped))
            except RowError as error:
                lint.refuse(row.file, row.number, str(error))
        refuse_errors(lint)
    if not lint.rows:
        raise RunError(Reason.DATASET_INVALID, f"{source.uri} has no rows", hint="Check that it is the right file.")
    return Gathered(source, path, count, lint)


def refuse_errors(lint: Lint) -> None:
    """Raise when there are rows that cannot be used."""
    if not lint.errors:
        return
    count = sum(tally.count for tally in lint.errors.values())
    kinds = [f"{what} ({tally})" for what, tally in list(lint.errors.items())[:5]]
    more = f"; and {len(lint.errors) - 5} more kinds of errors" if len(lint.errors) > 5 else ""
    raise RunError(
        Reason.DATASET_INVALID,
        f"{lint.source}: {count} of {lint.rows} rows cannot be used: {'; '.join(kinds)}{more}",
        hint="Correct these rows or take them out. docs/data.md shows each format as rows; dataset.format fixes which "
        "one it is, and dataset.columns names columns that have other names.",
    )


def refuse_unfit(train: Gathered, validation: Gathered | None) -> None:
    """Raise when the two cannot be trained and validated on together, or nothing can be held out of the one."""
    if validation is None:
        if train.lint.one_prompt:
            raise one_prompt(train.source.uri)
    elif train.lint.conversational != validation.lint.conversational:
        kinds = {True: "chat messages", False: "text"}
        raise RunError(
            Reason.DATASET_INVALID,
            f"{train.source.uri} has {kinds[bool(train.lint.conversational)]}, {validation.source.uri} has "
            f"{kinds[bool(validation.lint.conversational)]}",
            hint="Give both as chat messages, or both as text.",
        )


def one_prompt(uri: str) -> RunError:
    """Why nothing can be held out of the rows of ``uri``."""
    return RunError(
        Reason.DATASET_INVALID,
        f"{uri}: no validation rows can be held out, because all rows have the same prompt",
        hint="Name a file of validation rows in dataset.validation.",
    )


@contextmanager
def writer(path: Path) -> Iterator[IO[str]]:
    """Open a file for writing that appears under its name when it is whole, and only if nothing went wrong."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    with temporary.open("w", encoding="utf-8") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(path.parent)
