"""From files of rows to train.jsonl and validation.jsonl: read, look at every row, hold out, write."""

import hashlib
import itertools
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from dporun_api.files import sync_folder
from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer.data.pairs import RowError, Tally, Text, held_out, prompt_digest, to_pair
from dporun_trainer.data.rows import read_rows
from dporun_trainer.errors import RunError
from dporun_trainer.inputs.encoding import Encoder
from dporun_trainer.inputs.lint import FEW_ROWS, Lint
from dporun_trainer.run_folder.prepared import LintReport
from dporun_trainer.significance import FEWEST

_BATCH = 256
_REPORT_SECONDS = 5.0


@dataclass(frozen=True)
class Source:
    """Files of preference pairs: (path, name for messages), and the URI that they came from."""

    uri: str
    files: list[tuple[Path, str]]


@dataclass(frozen=True)
class Dataset:
    """What was built.

    Attributes:
        train_rows: pairs in train.jsonl.
        validation_rows: pairs in validation.jsonl.
        fingerprint: SHA-256 over the rows of both, in order.
        lint: facts about the rows.
        warnings: what looks wrong, the most harmful first.
        longest: tokens of the longest prompt with a response, as training sees it.

    """

    train_rows: int
    validation_rows: int
    fingerprint: str
    lint: LintReport
    warnings: tuple[str, ...]
    longest: int


def build(
    train: Source,
    validation: Source | None,
    encoder: Encoder,
    *,
    max_length: int,
    fraction: float,
    seed: int,
    train_path: Path,
    validation_path: Path,
    on_progress: Callable[[str], None] = lambda _: None,
) -> Dataset:
    """Write the rows for training and validation as JSONL with an explicit prompt, and look at all of them.

    Args:
        train: the training data.
        validation: the validation data; without it, ``fraction`` of the prompts of ``train`` are held out.
        encoder: tokenizes as training will.
        max_length: dpo.maxLength, in tokens.
        fraction: share of the prompts to hold out.
        seed: of the choice of prompts.
        train_path: file to write.
        validation_path: file to write.
        on_progress: called with lines of progress.

    Raises:
        RunError: rows that cannot be used; the message names them.

    """
    looked = _examine(train, Lint(train.uri, encoder, max_length), train_path, on_progress)
    warnings = looked.warnings()
    if validation is None:
        _hold_out(looked.prompts, fraction, seed, train_path, validation_path, train.uri)
        report = LintReport(train=looked.facts())
        longest = looked.longest
    else:
        other = _examine(validation, Lint(validation.uri, encoder, max_length), validation_path, on_progress)
        _refuse_mixture(looked, other)
        leaked = looked.prompts & other.prompts
        report = LintReport(train=looked.facts(), validation=other.facts(), leaked_prompts=len(leaked))
        longest = max(looked.longest, other.longest)
        warnings += [f"validation: {warning}" for warning in other.warnings()]
        if leaked:
            tally = Tally()
            for number in _rows_with(leaked, validation_path):
                tally.add(validation_path.name, number)
            warnings.insert(
                0, f"prompts that training has as well, so that validation looks better than it is: {tally}"
            )
    train_rows, validation_rows = _count(train_path), _count(validation_path)
    if validation_rows < FEW_ROWS:
        gates = f"; with fewer than {FEWEST}, a run can hardly pass its gates" if validation_rows < FEWEST else ""
        warnings.append(f"only {validation_rows} validation rows: losses and rates on them mean little{gates}")
    return Dataset(
        train_rows, validation_rows, _fingerprint(train_path, validation_path), report, tuple(warnings), longest
    )


def _examine(source: Source, lint: Lint, path: Path, on_progress: Callable[[str], None]) -> Lint:
    """Look at every row of ``source`` and write those that can be used to ``path``."""
    reported = time.monotonic()
    rows = itertools.chain.from_iterable(read_rows(file, name) for file, name in source.files)
    lint.files.extend(name for _, name in source.files)
    with _writer(path) as out:
        while batch := list(itertools.islice(rows, _BATCH)):
            pairs = []
            for row in batch:
                lint.rows += 1
                try:
                    pairs.append(to_pair(row))
                except RowError as error:
                    lint.refuse(row.file, row.number, str(error))
            out.writelines(pair.line() + "\n" for pair in lint.keep(pairs))
            if time.monotonic() - reported >= _REPORT_SECONDS:
                reported = time.monotonic()
                on_progress(f"examined {lint.rows:,} rows of {source.uri}")
        _refuse(lint, source.uri)
    return lint


def _refuse(lint: Lint, uri: str) -> None:
    """Raise when there are rows that cannot be used, or none that can."""
    if lint.errors:
        count = sum(tally.count for tally in lint.errors.values())
        kinds = [f"{what} ({tally})" for what, tally in list(lint.errors.items())[:5]]
        more = f"; and {len(lint.errors) - 5} more kinds of errors" if len(lint.errors) > 5 else ""
        raise RunError(
            Reason.DATASET_INVALID,
            f"{uri}: {count} of {lint.rows} rows cannot be used: {'; '.join(kinds)}{more}",
            hint="Correct these rows or take them out. A row has chosen and rejected, and a prompt of its own or as "
            "their common beginning; each is text or a list of messages with role and content.",
        )
    if not lint.rows:
        raise RunError(Reason.DATASET_INVALID, f"{uri} has no rows", hint="Check that it is the right file.")
    if not lint.kept:
        raise RunError(
            Reason.DATASET_INVALID,
            f"{uri}: every prompt is longer than dpo.maxLength ({lint.max_length} tokens)",
            hint="Set a larger dpo.maxLength.",
        )
    if lint.all_alike:
        raise RunError(
            Reason.DATASET_INVALID,
            f"{uri}: in every row chosen and rejected are the same {lint.max_length} or fewer tokens, as training "
            "would see them: nothing can be learned from them",
            hint="Set a larger dpo.maxLength if they differ later; else the model's chat template leaves out their "
            "text, as one does that looks for parts in the content of a message: give the model another.",
        )


def _refuse_mixture(train: Lint, validation: Lint) -> None:
    """Raise when one has text and the other messages: a loss on one means nothing for the other."""
    if train.conversational != validation.conversational:
        kinds = {True: "chat messages", False: "text"}
        raise RunError(
            Reason.DATASET_INVALID,
            f"{train.source} has {kinds[bool(train.conversational)]}, {validation.source} has "
            f"{kinds[bool(validation.conversational)]}",
            hint="Give both as chat messages, or both as text.",
        )


def _hold_out(prompts: set[bytes], fraction: float, seed: int, train: Path, validation: Path, uri: str) -> None:
    """Move the rows of some prompts from ``train`` to ``validation``."""
    try:
        chosen = held_out(prompts, fraction, seed)
    except ValueError as error:
        raise RunError(
            Reason.DATASET_INVALID,
            f"{uri}: no validation rows can be held out, because all rows have the same prompt",
            hint="Name a file of validation rows in dataset.validation.",
        ) from error
    with _writer(validation) as validation_file, _writer(train) as train_file, train.open(encoding="utf-8") as rows:
        for line in rows:
            (validation_file if prompt_digest(_prompt(line)) in chosen else train_file).write(line)


def _rows_with(prompts: set[bytes], path: Path) -> list[int]:
    with path.open(encoding="utf-8") as rows:
        return [number for number, line in enumerate(rows, 1) if prompt_digest(_prompt(line)) in prompts]


def _prompt(line: str) -> Text:
    prompt: Text = json.loads(line)["prompt"]
    return prompt


def _count(path: Path) -> int:
    with path.open("rb") as rows:
        return sum(1 for _ in rows)


def _fingerprint(*paths: Path) -> str:
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as rows:
            for line in rows:
                digest.update(line)
        digest.update(b"\0")
    return digest.hexdigest()


@contextmanager
def _writer(path: Path) -> Iterator[IO[str]]:
    """Open a file for writing that appears under its name when it is whole, and only if nothing went wrong."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    with temporary.open("w", encoding="utf-8") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(path.parent)
