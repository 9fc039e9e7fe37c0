"""Whatever breaks, and however often: no run loses what it has trained. `make chaos` is the same for longer."""

import os
import random

import pytest

from dporun_testing.chaos.loop import Course, rage

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(os.environ.get("CLUSTER") == "current", reason="kills servers, which is for the dev cluster"),
]


@pytest.mark.usefixtures("installed_operator")
def test_no_run_loses_anything_in_chaos() -> None:
    result = rage(Course(seconds=90, runs=6, seed=random.SystemRandom().randrange(10_000)))
    assert result.wrong == {}
