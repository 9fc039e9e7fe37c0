"""Numbers as the report writes them; a dash stands for one that is absent."""

from dporun_api import text

DASH = "\N{EN DASH}"


def number(value: object, digits: int = 3) -> str:
    """Write a number with ``digits`` significant digits, a large one in full."""
    if not isinstance(value, (int, float)):
        return DASH
    return f"{value:.{digits}g}" if abs(value) < 10**digits else f"{value:,.0f}"


def percent(value: object) -> str:
    """Write a share as percentage."""
    return text.percent(value) if isinstance(value, (int, float)) else DASH
