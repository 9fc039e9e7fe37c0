"""The tables of docs/gpus.md are those of the estimate as it is; after a change of it: make gpu-sizes."""

import pytest

from dporun_testing import gpu_sizes


@pytest.mark.slow(15)
def test_the_table_of_sizes_is_that_of_the_estimate() -> None:
    assert gpu_sizes.read_page("sizes") == gpu_sizes.sizes_table()


@pytest.mark.parametrize("model", gpu_sizes.COUNTED[:1], ids=lambda model: model.name)
def test_the_table_of_what_is_counted_is_true(model: gpu_sizes.Published) -> None:
    """Of the smallest model; the larger ones take as long as the rest of the module."""
    assert gpu_sizes.line(gpu_sizes.counted_row(model)) in gpu_sizes.read_page("counted").splitlines()
