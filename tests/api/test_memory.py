"""When an estimate fits, and what it says."""

from dporun_api.memory import GIB, MemoryEstimate

ESTIMATE = MemoryEstimate(
    weights=15 * GIB,
    adapter=GIB,
    activations=34 * GIB,
    checkpointed_activations=2 * GIB,
    overhead=2 * GIB,
    host=8 * GIB,
)


def test_what_a_process_needs() -> None:
    assert ESTIMATE.least == 16 * GIB
    assert ESTIMATE.process(checkpointing=False) == 52 * GIB
    assert ESTIMATE.process(checkpointing=True) == 20 * GIB


def test_it_fits_with_room_for_an_error() -> None:
    assert ESTIMATE.fits(24 * GIB, checkpointing=True)
    assert not ESTIMATE.fits(22 * GIB, checkpointing=True)
    assert not ESTIMATE.fits(56 * GIB, checkpointing=False)


def test_every_part_is_named() -> None:
    assert ESTIMATE.parts == (
        "weights 15.0 GiB, adapter with optimizer 1.0 GiB, activations 34.0 GiB or, with gradient checkpointing, "
        "2.0 GiB, CUDA and buffers 2.0 GiB"
    )
