"""What the tests that train share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from dporun_testing import training


@pytest.fixture(scope="session")
def model(tiny_model: Path) -> Path:
    """Folder of the base model; copy it to change it."""
    return tiny_model


@pytest.fixture(scope="module")
def single_process() -> Iterator[None]:
    """This process as the only rank of a distributed training."""
    with training.single_process():
        yield
