"""Curves out of log histories."""

import math

import pytest

from dporun_trainer.run_folder.curves import Curves, as_measured


@pytest.mark.parametrize("reward", ["rewards/margins", "rewards/chosen", "rewards/rejected"])
@pytest.mark.parametrize("value", [math.nan, "NaN", math.inf])
def test_an_accuracy_of_no_numbers_is_none(reward: str, value: object) -> None:
    entry = {"step": 1, reward: value, "rewards/accuracies": 0.0, "eval_rewards/accuracies": 0.5}
    assert math.isnan(as_measured(entry)["rewards/accuracies"])
    assert as_measured(entry)["eval_rewards/accuracies"] == 0.5
    assert not Curves.of([entry]).series["rewards/accuracies"].finite()


def test_an_accuracy_of_numbers_stays() -> None:
    entry = {"step": 1, "rewards/margins": -0.1, "rewards/accuracies": 0.0, "loss": math.nan}
    assert as_measured(entry) == entry


def test_the_newest_step_may_have_no_metric() -> None:
    assert Curves.of([{"step": 8, "loss": 0.5}, {"step": 9, "epoch": 1.0}]).last_step == 9
    assert Curves().last_step == 0


def test_an_integer_beyond_every_float_is_no_number() -> None:
    assert Curves.of([{"step": 1, "loss": 0.5}, {"step": 2, "loss": 10**400}, {"step": 10**400, "loss": 0.5}]) == (
        Curves.of([{"step": 1, "loss": 0.5}])
    )
