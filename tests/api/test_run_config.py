"""What a configuration means that leaves something out."""

import pytest

from dporun_api.run_config import Lora


@pytest.mark.parametrize(
    ("asked", "takes_dropout", "used"),
    [(None, True, 0.05), (None, False, 0.0), (0.0, True, 0.0), (0.2, True, 0.2), (0.0, False, 0.0)],
)
def test_dropout_is_small_where_it_is_left_out(asked: float | None, takes_dropout: bool, used: float) -> None:
    """And 0 on experts, which take none."""
    assert Lora(dropout=asked).effective_dropout(takes_dropout=takes_dropout) == used
