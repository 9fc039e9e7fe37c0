"""What part of a data set an address asks for, as ``datasets`` writes it: ``?config=NAME&split=train[:10%]+test``."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl

from dporun_api.v1alpha1.reasons import Reason
from dporun_trainer.errors import RunError

_QUERY = re.compile(r"\?(?=\w+=)")
_SLICE = re.compile(r"(?P<split>\w+(?:[.-]\w+)*)(\[((?P<start>-?\d+)(?P<a>%)?)?:((?P<stop>-?\d+)(?P<b>%)?)?\])?")
_HINT = "Write ?split=train, ?split=train[:10%], ?split=train[1000:2000] or ?split=train+test; &config=NAME if need be."


@dataclass(frozen=True)
class Slice:
    """Rows of a split: from ``start`` to before ``stop``, in rows or percent, from the end where negative."""

    split: str
    start: int | None = None
    stop: int | None = None
    percent: bool = False

    @property
    def whole(self) -> bool:
        """Whether it is the whole split."""
        return self.start is None and self.stop is None

    def rows(self, total: int) -> tuple[int, int]:
        """Where it begins and ends in a split of ``total`` rows, rounded as ``datasets`` does (closest)."""

        def bound(value: int | None, otherwise: int) -> int:
            if value is None:
                return otherwise
            rows = round(value * total / 100) if self.percent else value
            return min(rows if rows >= 0 else max(total + rows, 0), total)

        return bound(self.start, 0), bound(self.stop, total)


@dataclass(frozen=True)
class Part:
    """What is behind the ``?`` of an address of data."""

    slices: tuple[Slice, ...] = ()
    """Empty when no split is named."""
    config: str | None = None
    revision: str | None = None

    @property
    def asked(self) -> bool:
        """Whether a part of the data set is asked for at all."""
        return bool(self.slices or self.config)


def split_address(uri: str, reason: Reason) -> tuple[str, Part]:
    """Take an address of data apart: what is before the query, and what the query asks for.

    A ``?`` that is no query (``?name=``) is a part of the path.

    Raises:
        RunError: a parameter that is not known, or a split that cannot be understood.

    """
    address, *rest = _QUERY.split(uri, maxsplit=1)
    if not rest:
        return uri, Part()
    query = dict(parse_qsl(rest[0].replace("+", "%2B")))
    if unknown := sorted(set(query) - {"split", "config", "revision"}):
        raise RunError(reason, f"cannot understand {uri}: unknown parameter {unknown[0]}", hint=_HINT)
    return address, Part(_slices(query.get("split", ""), uri, reason), query.get("config"), query.get("revision"))


def shares(part: Slice, counts: Sequence[int]) -> list[tuple[int, int]]:
    """Which rows of each file a slice takes, given how many each has: (first, one after the last)."""
    start, stop = part.rows(sum(counts))
    found, before = [], 0
    for count in counts:
        found.append((min(max(start - before, 0), count), min(max(stop - before, 0), count)))
        before += count
    return found


def _slices(text: str, uri: str, reason: Reason) -> tuple[Slice, ...]:
    slices = []
    for one in filter(None, re.split(r"\s*\+\s*", text)):
        match = _SLICE.fullmatch(one)
        percent = bool(match and (match["a"] or match["b"]))
        bounds = [int(match[name]) if match[name] else None for name in ("start", "stop")] if match else []
        if match is None or (percent and any(abs(bound or 0) > 100 for bound in bounds)):
            raise RunError(reason, f"cannot understand {uri}: no split is written {one!r}", hint=_HINT)
        slices.append(Slice(match["split"], bounds[0], bounds[1], percent))
    return tuple(slices)
