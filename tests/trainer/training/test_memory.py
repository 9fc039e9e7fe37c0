from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dporun_trainer.training.memory import (
    GIB,
    Shape,
    activations,
    needs_checkpointing,
    required,
)

SEVEN_BILLION = Shape(
    parameters=7_600_000_000,
    trainable=40_000_000,
    hidden=3584,
    intermediate=18944,
    layers=28,
    sequences=4,
    length=1024,
    value_bytes=2,
    lora_dropout=True,
    shards=1,
)


def test_a_model_of_seven_billion_needs_its_weights_and_more() -> None:
    assert required(SEVEN_BILLION, checkpointing=True) > 15.2e9
    assert required(SEVEN_BILLION, checkpointing=True) < 24 * GIB < required(SEVEN_BILLION, checkpointing=False)


def test_it_fits_where_it_is_known_to_fit() -> None:
    assert not needs_checkpointing(SEVEN_BILLION, 80 * GIB)
    assert needs_checkpointing(SEVEN_BILLION, 40 * GIB)


@given(st.integers(1, 64), st.integers(16, 8192))
def test_activations_grow_with_the_tokens_of_a_batch(sequences: int, length: int) -> None:
    shape = replace(SEVEN_BILLION, sequences=sequences, length=length)
    full = activations(shape, checkpointing=False)
    assert full == pytest.approx(sequences * activations(replace(shape, sequences=1), checkpointing=False), rel=1e-6)
    assert activations(shape, checkpointing=True) < full


def test_more_processes_share_the_optimizer() -> None:
    assert required(replace(SEVEN_BILLION, shards=8), checkpointing=True) < required(SEVEN_BILLION, checkpointing=True)
