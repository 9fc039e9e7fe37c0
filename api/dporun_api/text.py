"""Times, durations and numbers as people read them."""

from collections.abc import Callable
from datetime import UTC, datetime

_DECIMALS = 15
"""More of them say nothing of a float."""


def timestamp(moment: datetime) -> str:
    """RFC 3339 in UTC, to the second, as Kubernetes writes times."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_time(text: str | None) -> datetime | None:
    """Read a time of Kubernetes; None stays None."""
    return None if text is None else datetime.fromisoformat(text)


def duration(seconds: float) -> str:
    """Write a duration with its two largest units, such as ``1h12m`` or ``41s``."""
    total = max(0, round(seconds))
    parts = ((total // 86400, "d"), (total // 3600 % 24, "h"), (total // 60 % 60, "m"), (total % 60, "s"))
    first = next((index for index, (count, _) in enumerate(parts) if count), 3)
    return "".join(f"{count}{unit}" for count, unit in parts[first : first + 2] if count) or "0s"


def number(value: float | None, digits: int = 3) -> str | None:
    """Write ``value`` to ``digits`` significant digits; None stays None."""
    return None if value is None else f"{value:.{digits}g}"


def percent(share: float, digits: int = 1) -> str:
    """Write a share as percentage with up to ``digits`` decimals, such as ``92.5 %``."""
    text = f"{100 * share:.{digits}f}"
    return f"{text.rstrip('0').rstrip('.') if '.' in text else text} %"


def decimals(value: float, digits: int = 2) -> str:
    """Write ``value`` with ``digits`` decimals."""
    return f"{value:.{digits}f}"


def apart(value: float, *others: float, write: Callable[[float, int], str], digits: int) -> str:
    """Write ``value`` so that it does not read like one of ``others`` that it is not.

    Args:
        value: the number.
        others: what it is compared with, such as a limit.
        write: writes a number with so many decimals.
        digits: as many decimals, and more where they are needed.

    """
    while digits < _DECIMALS and any(o != value and write(o, digits) == write(value, digits) for o in others):
        digits += 1
    return write(value, digits)


def shorten(text: str, length: int) -> str:
    """Cut ``text`` to ``length`` characters, with an ellipsis where something was cut."""
    return text if len(text) <= length else text[: length - 1] + "…"


def capitalise(text: str) -> str:
    """``text`` with a capital first letter, unless it begins with a name, such as that of a file or field."""
    return text[:1].upper() + text[1:] if text.partition(" ")[0].isalpha() else text


def sentence(text: str) -> str:
    """``text`` with a full stop at its end."""
    text = text.strip()
    return text if not text or text.endswith((".", "!", "?", "…")) else f"{text}."
