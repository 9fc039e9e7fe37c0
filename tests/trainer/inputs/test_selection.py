"""What is held out: properties of the choice."""

import random

from hypothesis import given
from hypothesis import strategies as st

from dporun_trainer.inputs.selection import choose


@given(
    sizes=st.dictionaries(st.binary(min_size=1, max_size=8), st.integers(1, 9), min_size=2, max_size=50),
    fraction=st.floats(0.001, 0.999),
    seed=st.integers(0, 2**32 - 1),
    order=st.randoms(use_true_random=False),
)
def test_held_out_is_a_part_whatever_the_order(
    sizes: dict[bytes, int], fraction: float, seed: int, order: random.Random
) -> None:
    chosen = choose(sizes, fraction, seed)
    items = list(sizes.items())
    order.shuffle(items)
    assert choose(dict(items), fraction, seed) == chosen
    assert 1 <= len(chosen) < len(sizes)
    held, total = sum(sizes[key] for key in chosen), sum(sizes.values())
    assert held <= max(fraction * total + 1, min(sizes.values()))


@given(count=st.integers(2, 50), fraction=st.floats(0.001, 0.999), seed=st.integers(0, 2**32 - 1))
def test_of_single_prompts_the_share_is_exact(count: int, fraction: float, seed: int) -> None:
    chosen = choose({b"%d" % number: 1 for number in range(count)}, fraction, seed)
    assert len(chosen) == min(max(round(count * fraction), 1), count - 1)
