"""Properties of pairs and of the choice of held-out prompts."""

from hypothesis import given
from hypothesis import strategies as st

from dporun_trainer.data.pairs import Pair, Tally, held_out, prompt_digest

texts = st.text(max_size=30)


@given(
    prompts=st.sets(texts, min_size=2, max_size=50),
    fraction=st.floats(0.001, 0.999),
    seed=st.integers(0, 2**32 - 1),
    order=st.randoms(use_true_random=False),
)
def test_held_out_is_a_part_whatever_the_order(prompts: set[str], fraction: float, seed: int, order: object) -> None:
    digests = [prompt_digest(prompt) for prompt in sorted(prompts)]
    chosen = held_out(digests, fraction, seed)
    order.shuffle(digests)  # type: ignore[attr-defined]
    assert held_out(digests, fraction, seed) == chosen
    assert 1 <= len(chosen) < len(prompts)
    assert abs(len(chosen) - fraction * len(prompts)) <= 1


def test_tally_names_the_first_rows() -> None:
    tally = Tally()
    for number in range(1, 8):
        tally.add("a.jsonl", number)
    assert str(tally) == "rows 1, 2, 3, 4, 5 and 2 more of a.jsonl"
    shards = Tally()
    shards.add("a.parquet", 3)
    shards.add("b.parquet", 1)
    assert str(shards) == "rows 3 of a.parquet, 1 of b.parquet"


def test_line_is_canonical() -> None:
    assert Pair("é", "b", "c").line() == '{"prompt":"é","chosen":"b","rejected":"c"}'
