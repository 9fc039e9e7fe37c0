"""Histories at random, for hypothesis: it makes a failing one as short as it can."""

from hypothesis import strategies as st

from dporun_testing.simulated.faults import Fault
from dporun_testing.simulated.history import DELETIONS, Act, History
from dporun_testing.simulated.programs import Fate

LATEST_CALL = 120
"""About as many requests as a life with retries and a deletion needs."""

_SECONDS = st.integers(0, 150).map(float)
_SPANS = st.none() | st.tuples(_SECONDS, st.integers(1, 200).map(float))
_RARE = (Act.DELETE_CLAIM, Act.DELETE_NAMESPACE, Act.STRIP_RUN, Act.STRIP_CLAIM, Act.FORCE_RELEASE)
_COMMON = tuple(act for act in Act if act not in _RARE)


def _acts() -> st.SearchStrategy[tuple[tuple[float, Act], ...]]:
    act = st.sampled_from(_COMMON * 2 + _RARE + DELETIONS * 3)
    return st.lists(st.tuples(_SECONDS, act), max_size=4).map(lambda acts: tuple(sorted(acts)))


def _faults() -> st.SearchStrategy[tuple[tuple[int, Fault], ...]]:
    fault = st.tuples(st.integers(0, LATEST_CALL), st.sampled_from(Fault))
    return st.lists(fault, max_size=4, unique_by=lambda entry: entry[0]).map(lambda faults: tuple(sorted(faults)))


HISTORIES = st.builds(
    History,
    acts=_acts(),
    fates=st.lists(st.sampled_from(Fate), max_size=3).map(tuple),
    faults=_faults(),
    archive=st.sampled_from(["Finished", "Finished", "Finished", "Succeeded", "Passed", None]),
    policy=st.sampled_from(["Archive", "Archive", "Archive", "Retain", "Delete"]),
    reclaim=st.sampled_from(["Delete", "Delete", "Retain"]),
    own_claim=st.sampled_from([False, False, False, True]),
    ttl=st.sampled_from([None, None, None, 0, 60]),
    max_retries=st.integers(0, 3),
    down=st.sampled_from([1.0, 5.0, 60.0]),
    lag=st.sampled_from([0.0, 0.2, 3.0]),
    latency=st.sampled_from([0.01, 0.05, 1.0]),
    pace=st.sampled_from([0.01, 0.1, 2.0]),
    s3_refuses=_SPANS,
    watches_break=_SPANS,
    second_operator=_SPANS,
)
