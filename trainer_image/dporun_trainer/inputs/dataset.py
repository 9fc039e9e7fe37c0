"""From pairs to train.jsonl and validation.jsonl: look at every pair in tokens, hold out, write."""

import hashlib
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer.data.pairs import Tally, Text, held_out, prompt_digest
from dporun_trainer.errors import RunError
from dporun_trainer.inputs.encoding import PairEncoder
from dporun_trainer.inputs.gather import Gathered, Ticker, one_prompt, refuse_errors, writer
from dporun_trainer.inputs.lint import FEW_ROWS, Lint
from dporun_trainer.run_folder.prepared import LintReport
from dporun_trainer.run_folder.tokens import split_tokens, token_writer
from dporun_trainer.significance import FEWEST

_BATCH = 256


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
    train: Gathered,
    validation: Gathered | None,
    encoder: PairEncoder,
    *,
    fraction: float,
    seed: int,
    train_to: Side,
    validation_to: Side,
    on_progress: Callable[[str], None] = lambda _: None,
) -> Dataset:
    """Look at the pairs in tokens, and write those for training and validation as JSONL with an explicit prompt.

    Args:
        train: pairs of the training data.
        validation: those of the validation data; without them, ``fraction`` of the prompts of ``train`` are held out.
        encoder: tokenizes as training will.
        fraction: share of the prompts to hold out.
        seed: of the choice of prompts.
        train_to: files to write.
        validation_to: files to write.
        on_progress: called with lines of progress.

    Raises:
        RunError: rows that cannot be used; the message names them.

    """
    looked = _encode(train, encoder, train_to, on_progress)
    warnings = looked.warnings()
    if validation is None:
        _hold_out(looked.prompts, fraction, seed, train_to, validation_to, train.source.uri)
        report = LintReport(train=looked.facts())
        longest = looked.longest
    else:
        other = _encode(validation, encoder, validation_to, on_progress)
        leaked = looked.prompts & other.prompts
        report = LintReport(train=looked.facts(), validation=other.facts(), leaked_prompts=len(leaked))
        longest = max(looked.longest, other.longest)
        warnings += [f"validation: {warning}" for warning in other.warnings()]
        if leaked:
            tally = Tally()
            for number in _rows_with(leaked, validation_to.rows):
                tally.add(validation_to.rows.name, number)
            warnings.insert(
                0, f"prompts that training has as well, so that validation looks better than it is: {tally}"
            )
    train_rows, validation_rows = _count(train_to.rows), _count(validation_to.rows)
    if validation_rows < FEW_ROWS:
        gates = f"; with fewer than {FEWEST}, a run can hardly pass its gates" if validation_rows < FEWEST else ""
        warnings.append(f"only {validation_rows} validation rows: losses and rates on them mean little{gates}")
    return Dataset(
        train_rows, validation_rows, _fingerprint(train_to.rows, validation_to.rows), report, tuple(warnings), longest
    )


def _encode(gathered: Gathered, encoder: PairEncoder, to: Side, on_progress: Callable[[str], None]) -> Lint:
    """Look at the pairs of a source in tokens, and write those that training or validation gets."""
    lint = gathered.lint
    ticker = Ticker(on_progress)
    pairs = gathered.pairs()
    with writer(to.rows) as out, token_writer(to.tokens) as write_tokens:
        done = 0
        while batch := list(itertools.islice(pairs, _BATCH)):
            kept = lint.keep(batch, encoder)
            out.writelines(pair.line() + "\n" for pair, _ in kept)
            write_tokens(tokens for _, tokens in kept)
            done += len(batch)
            ticker.tick(f"tokenized {done:,} of {gathered.count:,} pairs of {gathered.source.uri}")
        refuse_errors(lint)
        _refuse_useless(lint)
    return lint


def _refuse_useless(lint: Lint) -> None:
    """Raise when training would see nothing of any pair, or nothing to learn from."""
    uri = lint.source
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


def _hold_out(prompts: set[bytes], fraction: float, seed: int, train: Side, validation: Side, uri: str) -> None:
    """Move the rows of some prompts from ``train`` to ``validation``."""
    try:
        chosen = held_out(prompts, fraction, seed)
    except ValueError as error:
        raise one_prompt(uri) from error
    held = []
    with writer(validation.rows) as out, writer(train.rows) as kept, train.rows.open(encoding="utf-8") as rows:
        for line in rows:
            held.append(prompt_digest(_prompt(line)) in chosen)
            (out if held[-1] else kept).write(line)
    if train.tokens and validation.tokens:
        split_tokens(train.tokens, validation.tokens, held)


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
