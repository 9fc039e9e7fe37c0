"""Read a whole file of preference pairs: those that prepare wrote, or a user's own for a test."""

import contextlib
from pathlib import Path

from dporun_api.row_formats import DatasetFormat
from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer.data.formats.recognise import Options, recognise_first
from dporun_trainer.data.pairs import Pair, RowError, RowSkipped, Tally
from dporun_trainer.data.rows import read_rows
from dporun_trainer.errors import RunError

WRITTEN = Options(format=DatasetFormat.PREFERENCE)
"""How prepare writes pairs (Pair.line)."""


def read_pairs(path: Path, options: Options = WRITTEN) -> list[Pair]:
    """Read preference pairs.

    Of a user's own file, responses that are the same are refused; prepare writes them where the policy keeps them.

    Raises:
        RunError: no such file, or rows that are no preference pairs; names them.

    """
    if not path.is_file():
        raise RunError(Reason.DATASET_INVALID, f"{path} is not a file")
    form, rows = recognise_first(read_rows(path), options)
    pairs: list[Pair] = []
    wrong: dict[str, Tally] = {}
    for row in rows:
        try:
            with contextlib.suppress(RowSkipped):
                found = form.pairs(row)
                if options is not WRITTEN and any(pair.chosen == pair.rejected for pair in found):
                    raise RowError("the same in chosen and rejected")
                pairs += found
        except RowError as error:
            wrong.setdefault(str(error), Tally()).add(row.file, row.number)
    if wrong:
        message = "; ".join(f"{tally}: {what}" for what, tally in list(wrong.items())[:5])
        raise RunError(Reason.DATASET_INVALID, message, hint="Each row needs prompt, chosen and rejected.")
    if not pairs:
        raise RunError(Reason.DATASET_INVALID, f"{path} has no rows")
    return pairs
