"""Names of children: valid, short enough, different for different runs."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dporun_operator import names

LABEL = re.compile(r"^[a-z]([a-z0-9-]*[a-z0-9])?$")
RUN = st.from_regex(r"\A[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?\Z").filter(
    lambda name: ".." not in name and ".-" not in name
)


@pytest.mark.parametrize(
    ("name", "made"),
    [(names.train_job("demo", 12), "demo-train-12"), (names.tensorboard("demo"), "demo-tensorboard")],
)
def test_a_short_name_is_kept(name: str, made: str) -> None:
    assert name == made


@given(RUN, st.integers(1, 9999))
def test_any_run_has_children_with_valid_names(run: str, attempt: int) -> None:
    for name in (
        names.train_job(run, attempt),
        names.archive_job(run, attempt),
        names.prepare_job(run, 1),
        names.train_service(run),
        names.config_map(run),
        names.tensorboard(run),
        names.results_claim(run, "0a1b2c3d-1111"),
    ):
        assert LABEL.match(name)
        assert len(f"{name}-63") <= 63
    assert len(names.label_value(run)) <= 63


@given(RUN, RUN)
def test_two_runs_never_share_a_name(one: str, other: str) -> None:
    if one != other:
        assert names.train_job(one, 1) != names.train_job(other, 1)


@pytest.mark.parametrize(("one", "other"), [("a.b", "a-b"), ("1a", "run-1a"), ("x" * 60, "x" * 61)])
def test_names_that_are_made_alike_differ_by_their_hash(one: str, other: str) -> None:
    assert names.tensorboard(one) != names.tensorboard(other)


def test_children_of_runs_whose_names_look_like_children_differ() -> None:
    assert names.train_job("demo", 1) != names.prepare_job("demo-train-1", 1)
