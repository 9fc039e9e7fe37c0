"""The rows of a source as one stream: some of them drawn where only some are wanted, and how far the reading is."""

import hashlib
import heapq
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from dporun_api.text import duration
from dporun_trainer.data.rows import Row, RowFile


@dataclass(frozen=True)
class Source:
    """Files of rows, and the URI that they came from.

    Attributes:
        uri: for messages.
        files: in their order.
        max_rows: take so many of their rows; all when None.
        seed: of the choice.

    """

    uri: str
    files: list[RowFile]
    max_rows: int | None = None
    seed: int = 0

    def rows(self, tick: Callable[[str], None] = lambda _: None) -> Iterator[Row]:
        """Read the rows, in their order; ``tick`` gets a line of progress for each.

        Which rows are drawn depends on the seed and on what they say, not on their order or that of the files.

        Raises:
            RunError: a file as a whole cannot be read.

        """
        if self.max_rows is None:
            yield from self._read("read", tick)
            return
        highest, ties = self._draw(self.max_rows, tick)
        for row in self._read("read", tick):
            rank = self._rank(row)
            ties -= rank == highest
            if rank < highest or (rank == highest and ties >= 0):
                yield row

    def _draw(self, count: int, tick: Callable[[str], None]) -> tuple[int, int]:
        """Find the highest rank that belongs to the ``count`` lowest ones, and how many of these have it."""
        lowest: list[int] = []  # negated: the highest first
        for row in self._read("looked for those to draw at", tick):
            if len(lowest) < count:
                heapq.heappush(lowest, -self._rank(row))
            else:
                heapq.heappushpop(lowest, -self._rank(row))
        highest = -lowest[0] if lowest else 0
        return highest, sum(-rank == highest for rank in lowest)

    def _rank(self, row: Row) -> int:
        said = [row.file, row.number, row.error] if row.error else row.columns
        text = json.dumps([self.seed, said], sort_keys=True, default=str)
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")

    def _read(self, verb: str, tick: Callable[[str], None]) -> Iterator[Row]:
        started = time.monotonic()
        total = sum(file.path.stat().st_size for file in self.files)
        done = count = position = 0

        def seen(read: int) -> None:
            nonlocal position
            position = read

        for file in self.files:
            position = 0
            for row in file.rows(seen):
                yield row
                count += 1
                share = min((done + position) / max(total, 1), 1.0)
                tick(f"{verb} {count:,} rows of {self.uri}: {pace(share, count, time.monotonic() - started)}")
            done += file.path.stat().st_size


def pace(share: float, count: int, seconds: float) -> str:
    """Say how far something is: percent, rows per second, the time that is left."""
    left = f", {duration(seconds / share - seconds)} left" if share else ""
    return f"{share:.0%}, {count / max(seconds, 1e-3):,.0f} rows/s{left}"
