"""Fetch the preference pairs of a run, read them, and decide on them what needs no model."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from dporun_api.dataset_report import DatasetReport, SourceReport
from dporun_api.results import Failure
from dporun_api.run_config import Dataset
from dporun_trainer.inputs.fetch import Fetcher
from dporun_trainer.inputs.gather import Gathered, gather
from dporun_trainer.inputs.lint import Lint
from dporun_trainer.inputs.selection import Selection, select
from dporun_trainer.inputs.source import Source
from dporun_trainer.stores.sources import DATASET


@dataclass
class Reading:
    """The way of the data as far as it went: where it is refused, what was seen of it until then can be reported.

    Attributes:
        dataset: the data, and what is to become of its rows.
        max_length: dpo.maxLength, in tokens.
        seed: of what is drawn and held out.
        lints: of each source that was begun, first that of the training data.

    """

    dataset: Dataset
    max_length: int
    seed: int
    lints: list[Lint] = field(default_factory=list)

    def select(self, fetcher: Fetcher, folder: Path, on_progress: Callable[[str], None]) -> Selection:
        """Fetch and read all sources into ``folder``.

        Raises:
            RunError: data cannot be had, or cannot be used.

        """
        gathered: list[Gathered] = []
        for side, uri in (("train", self.dataset.train), ("validation", self.dataset.validation)):
            if uri is None:
                continue
            on_progress(f"fetching {side} data from {uri}")
            files = fetcher.data(uri, folder / side, DATASET)
            drawn = self.dataset.max_rows if side == "train" else None
            one = gather(
                Source(uri, files, drawn, self.seed),
                folder / f"{side}-pairs.jsonl",
                self.dataset,
                max_length=self.max_length,
                prompts=gathered[0].survey.prompts if gathered else None,
                seen=self.lints.append,
                on_progress=on_progress,
            )
            on_progress(f"read {one.count:,} pairs from {uri}")
            gathered.append(one)
        return select(gathered[0], gathered[1] if len(gathered) > 1 else None, self.dataset, self.seed)

    def refused(self, failure: Failure) -> DatasetReport | None:
        """What was seen of data that is refused; None when no row was read."""
        if not any(lint.rows for lint in self.lints):
            return None
        sides = [SourceReport(facts=lint.facts(), dropped=tuple(lint.dropped)) for lint in self.lints]
        return DatasetReport(train=sides[0], validation=sides[1] if len(sides) > 1 else None, refused=failure)
