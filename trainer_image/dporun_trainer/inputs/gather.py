"""From files of rows to pairs: what can be seen of the data before there is a tokenizer. No heavy imports."""

import itertools
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from dporun_api.files import sync_folder
from dporun_api.run_config import Dataset
from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer.data.formats import LOOKED_AT, Format, Options, recognise_first
from dporun_trainer.data.pairs import Pair, RowError, RowSkipped
from dporun_trainer.data.rows import Row
from dporun_trainer.errors import RunError
from dporun_trainer.inputs.lint import Lint
from dporun_trainer.inputs.similar import Texts
from dporun_trainer.inputs.source import Source
from dporun_trainer.inputs.survey import Survey

_REPORT_SECONDS = 5.0
_HOPELESS = 1000
"""When so many rows at the beginning cannot be used, and no other was found, the rest is not read, unless
dataset.invalidRows lets even that pass."""


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

    @property
    def survey(self) -> Survey:
        """What its pairs have in common with one another."""
        return self.lint.survey

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
    policies: Dataset,
    *,
    max_length: int,
    prompts: Texts | None = None,
    seen: Callable[[Lint], None] = lambda _: None,
    on_progress: Callable[[str], None] = lambda _: None,
) -> Gathered:
    """Read every row of ``source``, and write the pairs to ``path``.

    Args:
        source: files of rows.
        path: file to write.
        policies: what the user says about the rows.
        max_length: dpo.maxLength, in tokens.
        prompts: those of another source, for validation data those of the training data.
        seen: gets the lint before the first row, and knows by it what was wrong where the data is refused.
        on_progress: called with lines of progress.

    Raises:
        RunError: no rows, or more that cannot be used than the policy lets pass; the message names them.

    """
    survey = Survey(prompts or Texts(policies.similarity), Texts(policies.similarity))
    lint = Lint(source.uri, max_length, policies, survey)
    seen(lint)
    lint.files.extend(file.name for file in source.files)
    ticker = Ticker(on_progress)
    with writer(path) as out:
        form, rows = recognise_first(source.rows(ticker.tick), Options.of(policies))
        lint.form = form.title
        first = list(itertools.islice(rows, LOOKED_AT))
        lint.conversational = _conversational(form, first)
        on_progress(f"{source.uri} is read as {form.title}")
        for row in itertools.chain(first, rows):
            lint.rows += 1
            try:
                group = _group(row, policies.group_by)
                for pair in form.pairs(row):
                    lint.read(pair, group)
                    out.write(json.dumps(vars(pair), ensure_ascii=False) + "\n")
            except RowSkipped as skipped:
                lint.skip(row.file, row.number, str(skipped))
            except RowError as error:
                lint.refuse(row.file, row.number, str(error))
                if lint.rows == lint.invalid_rows == _HOPELESS:
                    lint.require_valid()
        lint.require_valid()
    survey.responses.close()
    if not lint.rows:
        raise RunError(Reason.DATASET_INVALID, f"{source.uri} has no rows", hint="Check that it is the right file.")
    return Gathered(source, path, lint.pairs, lint)


def _conversational(form: Format, rows: Iterable[Row]) -> bool | None:
    """Whether most of the first rows are messages: one odd row must not decide against all others."""
    kinds = Counter[bool]()
    for row in rows:
        with suppress(RowError, RowSkipped):
            kinds.update(pair.conversational for pair in form.pairs(row)[:1])
    return max(kinds, key=lambda kind: kinds[kind], default=None)


def _group(row: Row, column: str | None) -> bytes | None:
    """What dataset.groupBy says of a row; None without it, and of a row that cannot be read anyway."""
    if column is None or row.error is not None:
        return None
    value = row.columns.get(column)
    if value is None:
        raise RowError(f"no {column} (dataset.groupBy) among the columns ({', '.join(sorted(row.columns)) or 'none'})")
    return json.dumps(value, sort_keys=True, default=str).encode("utf-8", "surrogatepass")


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
