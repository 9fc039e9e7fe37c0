"""What only a GPU proves: the steps of bench/gpu but for the large models, each as a test of its own."""

import pytest
from gpu.common import NotHere, Place, Step, made, no_gpu

from gpu import evaluation, failures, start

pytestmark = [pytest.mark.gpu, pytest.mark.slow(60)]

STEPS = [*start.STEPS, *failures.STEPS, *evaluation.STEPS]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Place:
    """One for all: the models are made once."""
    if request.config.option.markexpr != "gpu":
        pytest.skip("the other tests have taken the GPUs away: make test-gpu")
    if problem := no_gpu():
        pytest.fail(problem)
    return Place(tmp_path_factory.mktemp("gpu"), cuda=True)


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.__name__)
def test_a_step_on_the_gpu(place: Place, step: Step) -> None:
    try:
        print(made(step, place))
    except NotHere as missing:
        pytest.skip(str(missing))
