"""Random histories of a run: the user, its pods, S3, the operator and its requests go wrong in any order.

``make test`` plays 150, always the same; ``make nightly`` plays DPORUN_HISTORIES new ones. A history that
ends badly is made as short as possible and printed: paste it into ``REGRESSIONS``.
"""

import os

import pytest
from hypothesis import HealthCheck, given, settings

from dporun_testing.simulated.faults import Fault
from dporun_testing.simulated.histories import HISTORIES
from dporun_testing.simulated.history import Act, History
from dporun_testing.simulated.programs import Fate
from dporun_testing.simulated.verdict import check

COUNT = int(os.environ.get("DPORUN_HISTORIES", "0"))

REGRESSIONS = {
    "a look at a run that was let go made its ConfigMap again": History(
        acts=((70, Act.DELETE),), archive="Passed", fates=(Fate.ENDS_BADLY,)
    ),
    "a Job that was orphaned of a run given up went on": History(
        acts=((25, Act.FORCE_RELEASE), (26, Act.DELETE_ORPHAN)), latency=0.01, pace=2.0
    ),
    "Jobs that nobody had written of were deleted, and the run took itself for one that never trained": History(
        acts=((72.0, Act.DELETE_JOBS), (81.0, Act.DELETE)),
        faults=(
            (14, Fault.KILLED_BEFORE),
            (49, Fault.LOST_REQUEST),
            (60, Fault.UNAVAILABLE),
            (115, Fault.LOST_REQUEST),
        ),
        archive="Succeeded",
        ttl=60,
        max_retries=1,
        lag=0.0,
        latency=0.01,
        s3_refuses=(149.0, 142.0),
        watches_break=(76.0, 121.0),
        second_operator=(123.0, 111.0),
    ),
}
"""Histories that ended badly once."""


@pytest.mark.parametrize("name", REGRESSIONS)
def test_what_ended_badly_once_ends_well(name: str) -> None:
    check(REGRESSIONS[name])


@settings(
    max_examples=COUNT or 150,
    derandomize=not COUNT,
    database=None,
    deadline=None,
    print_blob=False,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(HISTORIES)
def test_every_history_ends_well(history: History) -> None:
    check(history)
