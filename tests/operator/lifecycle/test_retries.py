"""When to try again."""

from dporun_operator.lifecycle import retries


def test_waits_grow_to_a_limit() -> None:
    assert [retries.delay(n) for n in (1, 2, 3, 6, 7, 10_000)] == [10, 20, 40, 300, 300, 300]
