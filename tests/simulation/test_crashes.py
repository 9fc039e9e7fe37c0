"""The operator is killed at every single call of a life, before it takes effect and after; every life ends well.

So it does when the call is lost, answered too late, or refused. ``make test`` kills in two lives; ``make nightly`` does
everything in all of them.
"""

import os
from dataclasses import replace

import pytest

from dporun_testing.simulated.faults import Fault
from dporun_testing.simulated.history import Act, History
from dporun_testing.simulated.programs import Fate
from dporun_testing.simulated.verdict import check
from dporun_testing.simulated.world import play

LIVES = {
    "succeeds and is deleted": History(acts=((70, Act.DELETE),)),
    "is deleted while it prepares": History(acts=((2, Act.DELETE),)),
    "is deleted while it trains": History(acts=((25, Act.DELETE_FOREGROUND),)),
    "is deleted while it is archived": History(acts=((47, Act.DELETE_ORPHAN),)),
    "is suspended, resumed and deleted": History(acts=((25, Act.SUSPEND), (60, Act.RESUME), (120, Act.DELETE))),
    "fails, is evicted and is archived": History(fates=(Fate.IS_KILLED, Fate.IS_EVICTED), acts=((250, Act.DELETE),)),
    "is altered in the archive, then deleted": History(acts=((70, Act.ALTER_ARCHIVE), (80, Act.DELETE))),
    "fails for good": History(fates=(Fate.DOES_NOT_FIND_MEMORY,), acts=((100, Act.DELETE),)),
    "has no archive and is deleted": History(archive=None, acts=((70, Act.DELETE),)),
    "does not pass and is not archived": History(archive="Passed", fates=(Fate.ENDS_BADLY,), acts=((70, Act.DELETE),)),
    "is archived when S3 is back": History(s3_refuses=(0, 120), acts=((60, Act.DELETE),)),
    "loses its namespace while it trains": History(acts=((25, Act.DELETE_NAMESPACE),)),
    "loses its namespace when it is archived": History(acts=((70, Act.DELETE_NAMESPACE),)),
    "loses its claim while it trains": History(acts=((25, Act.DELETE_CLAIM), (100, Act.DELETE))),
    "loses its volume and trains on another one": History(
        acts=((20, Act.DELETE_CLAIM), (21, Act.STRIP_CLAIM), (24, Act.DELETE_PODS), (300, Act.DELETE))
    ),
    "loses a node": History(fates=(Fate.NODE_IS_LOST,), acts=((900, Act.DELETE),)),
}
NIGHTLY = "DPORUN_HISTORIES" in os.environ
QUICK = [("succeeds and is deleted", Fault.KILLED_AFTER), ("has no archive and is deleted", Fault.KILLED_AFTER)]
ALL = [(life, fault) for life in LIVES for fault in Fault]


@pytest.mark.parametrize("life", LIVES)
def test_lives_end_well(life: str) -> None:
    check(LIVES[life])


@pytest.mark.parametrize(("life", "fault"), ALL if NIGHTLY else QUICK)
def test_lives_end_well_whenever_the_operator_dies(life: str, fault: Fault) -> None:
    calls = play(LIVES[life]).calls
    for number in range(calls):
        check(replace(LIVES[life], faults=((number, fault),)))
