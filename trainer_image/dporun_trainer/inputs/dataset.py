"""From pairs to train.jsonl and validation.jsonl: look at every pair in tokens, leave out, hold out, write."""

import hashlib
import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dporun_api.dataset_report import DatasetReport, Sample, SourceReport
from dporun_trainer.data.pairs import Pair, Text
from dporun_trainer.inputs.encoding import PairEncoder
from dporun_trainer.inputs.gather import Gathered, Ticker, writer
from dporun_trainer.inputs.lint import FEW_ROWS, Kept
from dporun_trainer.inputs.selection import Selection, nothing_left
from dporun_trainer.inputs.source import pace
from dporun_trainer.run_folder.prepared import LintReport
from dporun_trainer.run_folder.tokens import token_writer
from dporun_trainer.significance import FEWEST

_BATCH = 256
_SAMPLES = 5
_SAMPLE_CHARACTERS = 2000


@dataclass(frozen=True)
class Side:
    """What training or validation gets: the pairs as JSONL, and the same pairs in tokens, where anybody trains."""

    rows: Path
    tokens: Path | None = None


@dataclass(frozen=True)
class Dataset:
    """What was built.

    Attributes:
        train_rows: pairs in train.jsonl.
        validation_rows: pairs in validation.jsonl.
        fingerprint: SHA-256 over the rows of both, in order.
        lint: facts about the rows.
        report: all that is to be said of them.
        warnings: what looks wrong, the most harmful first.
        longest: tokens of the longest prompt with a response, as training sees it.

    """

    train_rows: int
    validation_rows: int
    fingerprint: str
    lint: LintReport
    report: DatasetReport
    warnings: tuple[str, ...]
    longest: int

    @property
    def dropped(self) -> int:
        """Rows, or pairs of them, that were left out."""
        return sum(len(side.dropped) for side in (self.report.train, self.report.validation) if side)


def build(
    selection: Selection,
    encoder: PairEncoder,
    *,
    train_to: Side,
    validation_to: Side,
    on_progress: Callable[[str], None] = lambda _: None,
) -> Dataset:
    """Look at the pairs in tokens, and write those for training and validation as JSONL with an explicit prompt.

    Args:
        selection: the pairs, which of them are left out, and which are held out.
        encoder: tokenizes as training will.
        train_to: files to write.
        validation_to: files to write.
        on_progress: called with lines of progress.

    Raises:
        RunError: rows that cannot be used, or nothing left of them; the message names them.

    """
    train, other = selection.train, selection.validation
    with _written(train_to) as training, _written(validation_to) as validation:

        def hold_out(some: list[Kept]) -> None:
            training([one for one in some if one[0] not in selection.held_out])
            validation([one for one in some if one[0] in selection.held_out])

        sides = [_encode(train, selection.train_out, encoder, hold_out, on_progress)]
        if other is not None:
            sides.append(_encode(other, selection.validation_out, encoder, validation, on_progress))
    train_rows, validation_rows = _count(train_to.rows), _count(validation_to.rows)
    for name, rows in (("training", train_rows), ("validation", validation_rows)):
        if not rows:
            raise nothing_left(name, filter(None, (train, other)))
    warnings = [*selection.warnings, *train.lint.warnings()]
    if other is not None:
        warnings += [f"validation: {warning}" for warning in other.lint.warnings()]
    if validation_rows < FEW_ROWS:
        gates = f"; with fewer than {FEWEST}, a run can hardly pass its gates" if validation_rows < FEWEST else ""
        warnings.append(f"only {validation_rows} validation rows: losses and rates on them mean little{gates}")
    report = DatasetReport(
        train=sides[0],
        validation=sides[1] if other else None,
        train_pairs=train_rows,
        validation_pairs=validation_rows,
        leaked_prompts=selection.leaks.exact,
        near_leaked_prompts=selection.leaks.near,
        warnings=tuple(warnings),
        max_length=train.lint.max_length if encoder.template is not None else None,
    )
    return Dataset(
        train_rows=train_rows,
        validation_rows=validation_rows,
        fingerprint=_fingerprint(train_to.rows, validation_to.rows),
        lint=LintReport(
            train=report.train.facts,
            validation=report.validation.facts if report.validation else None,
            leaked_prompts=report.leaked_prompts,
        ),
        report=report,
        warnings=report.warnings,
        longest=max(side.lint.longest for side in (train, other) if side),
    )


def _encode(
    gathered: Gathered,
    out: set[int],
    encoder: PairEncoder,
    write: Callable[[list[Kept]], None],
    on_progress: Callable[[str], None],
) -> SourceReport:
    """Look at the pairs of a source in tokens but those in ``out``, and write the ones that are kept."""
    lint, ticker, started = gathered.lint, Ticker(on_progress), time.monotonic()
    pairs = ((index, pair) for index, pair in enumerate(gathered.pairs()) if index not in out)
    samples: list[Sample] = []
    while batch := list(itertools.islice(pairs, _BATCH)):
        kept = lint.keep(batch, encoder)
        write(kept)
        for index, pair, _ in kept:
            if index * _SAMPLES >= len(samples) * gathered.count:
                samples.append(_sample(pair))
        done = batch[-1][0] + 1
        at = pace(done / gathered.count, done, time.monotonic() - started)
        ticker.tick(f"tokenized {done:,} of {gathered.count:,} pairs of {gathered.source.uri}: {at}")
    lint.require_useful()
    return SourceReport(facts=lint.facts(), dropped=tuple(lint.dropped), samples=tuple(samples))


@contextmanager
def _written(to: Side) -> Iterator[Callable[[list[Kept]], None]]:
    """Open the files of a side for writing."""
    with writer(to.rows) as rows, token_writer(to.tokens) as write_tokens:

        def write(kept: list[Kept]) -> None:
            rows.writelines(pair.line() + "\n" for _, pair, _ in kept)
            write_tokens(tokens for _, _, tokens in kept)

        yield write


def _sample(pair: Pair) -> Sample:
    prompt, chosen, rejected = (_shortened(text) for text in (pair.prompt, pair.chosen, pair.rejected))
    return Sample(file=pair.file, row=pair.number, prompt=prompt, chosen=chosen, rejected=rejected)


def _shortened(text: Text) -> str | tuple[dict[str, object], ...]:
    if isinstance(text, str):
        return text if len(text) <= _SAMPLE_CHARACTERS else text[:_SAMPLE_CHARACTERS] + "…"
    return tuple({**message, "content": _shortened(message["content"])} for message in text)


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
