"""Numbers as the report writes them; a dash stands for one that is absent."""

import math

from dporun_api import text

DASH = "\N{EN DASH}"
NOT_A_NUMBER = "not a number"


def number(value: object, digits: int = 3) -> str:
    """Write a number with ``digits`` significant digits, a large one in full."""
    if not isinstance(value, (int, float)):
        return DASH
    if not math.isfinite(value):
        return NOT_A_NUMBER
    return f"{value:.{digits}g}" if abs(value) < 10**digits else f"{value:,.0f}"


def percent(value: object) -> str:
    """Write a share as percentage."""
    if not isinstance(value, (int, float)):
        return DASH
    return text.percent(value) if math.isfinite(value) else NOT_A_NUMBER
