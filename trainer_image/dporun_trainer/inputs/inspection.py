"""Look at preference data as prepare does, without a run: what it would keep, leave out and refuse."""

import sys
from collections.abc import Callable
from pathlib import Path

from dporun_api.dataset_report import DatasetReport
from dporun_api.run_config import Dataset, Model
from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer.errors import RunError
from dporun_trainer.inputs.dataset import Side, build
from dporun_trainer.inputs.encoding import Characters, Encoder, PairEncoder
from dporun_trainer.inputs.fetch import Fetcher
from dporun_trainer.inputs.reading import Reading
from dporun_trainer.inputs.tokenizer import load_tokenizer
from dporun_trainer.inputs.weights import texts_of
from dporun_trainer.stores.sources import MODEL


def inspect(
    dataset: Dataset,
    scratch: Path,
    *,
    model: Model | None,
    max_length: int,
    seed: int,
    claims: Path,
    on_progress: Callable[[str], None] = lambda _: None,
) -> DatasetReport:
    """Look at every row.

    Args:
        dataset: the data, and what is to become of its rows.
        scratch: empty folder for what is fetched and written meanwhile.
        model: whose tokenizer counts, at a path or URI; without one, lengths are in characters.
        max_length: dpo.maxLength, in tokens; without a model nothing is cut.
        seed: training.seed, with which rows are drawn and held out.
        claims: folder below which claims are mounted.
        on_progress: called with lines of progress.

    Returns:
        The report, with ``refused`` where a run would end here.

    Raises:
        RunError: data cannot be had at all, or the model is at fault.

    """
    fetcher = Fetcher(claims, on_progress)
    reading = Reading(dataset, sys.maxsize if model is None else max_length, seed)
    try:
        selection = reading.select(fetcher, scratch / "raw", on_progress)
        return build(
            selection,
            _encoder(model, fetcher, scratch),
            train_to=Side(scratch / "train.jsonl"),
            validation_to=Side(scratch / "validation.jsonl"),
            on_progress=on_progress,
        ).report
    except RunError as error:
        report = reading.refused(error.failure()) if error.reason is Reason.DATASET_INVALID else None
        if report is None:
            raise
        return report


def _encoder(model: Model | None, fetcher: Fetcher, scratch: Path) -> PairEncoder:
    if model is None:
        return Characters()
    folder, _ = fetcher.model(model.uri, model.revision, scratch / "model", MODEL, pick=texts_of)
    return Encoder(load_tokenizer(folder))
