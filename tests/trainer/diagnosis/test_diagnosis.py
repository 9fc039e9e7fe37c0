"""The diagnosis as a whole, judged on labelled runs: simulated ones and real ones."""

from collections import Counter

import pytest

from dporun_api.results import HealthState
from dporun_testing.labelled.recipes import KINDS, simulated_runs
from dporun_trainer.diagnosis.health import diagnose

INTENDED = {
    HealthState.ON_TRACK: (
        "healthy",
        "saturated",
        "fast",
        "noisy-labels",
        "small-batch",
        "heavy-tails",
        "late",
        "slow-start",
        "few-spikes",
        "nan-once",
        "one-swing",
    ),
    HealthState.OVERFITTING: ("memorising", "noise-only", "gap-only"),
    HealthState.UNDERFITTING: ("timid", "nothing-to-learn"),
    HealthState.UNSTABLE: ("swinging", "collapsing", "diverging", "hot", "thrown", "nan", "many-spikes"),
    HealthState.CONFUSED: ("swapped", "opposite-and-memorised"),
}
"""What the makers of simulated runs mean them to be; the other kinds are of several states."""


@pytest.mark.parametrize("state", INTENDED)
def test_simulated_runs_are_what_they_are_meant_to_be(state: HealthState) -> None:
    """Labels follow from the true course of a run; makers and criteria, written apart, agree on it."""
    labels = Counter(run.label.expected for run in simulated_runs() if run.kind in INTENDED[state])
    assert labels[state] + labels[HealthState.UNKNOWN] >= 0.85 * labels.total(), labels


def test_simulated_runs_are_many_and_of_all_kinds() -> None:
    runs = simulated_runs()
    assert len(runs) >= 600
    assert {run.kind for run in runs} == set(KINDS)
    halves = Counter(run.half for run in runs)
    assert abs(halves["tuning"] - halves["held-out"]) < 0.1 * len(runs)
    clear = [run for run in runs if len(run.label.accepted) == 1]
    assert len(clear) >= 0.7 * len(runs), "too many runs may be called this or that"


def test_a_validation_may_come_before_the_first_log() -> None:
    """Live, with a validation every few steps and a log every fifty."""
    for loss in (0.3, 0.69, 5.0):
        assert diagnose([{"eval_loss": loss, "step": 8, "epoch": 0.1}]).state in set(HealthState)
