import math

import pytest

pytestmark = pytest.mark.slow  # imports transformers

HISTORY = [
    {"step": 1, "loss": 0.69, "rewards/margins": 0.0, "learning_rate": 1e-5, "grad_norm": 2.0},
    {"step": 4, "eval_loss": 0.6, "eval_rewards/margins": 0.4},
    {"step": 5, "loss": math.nan, "rewards/margins": 0.9, "learning_rate": 9e-6, "grad_norm": math.inf},
]


def test_rewards_are_those_of_validation_once_there_are_any() -> None:
    from dporun_trainer.training.reporter import newest

    assert newest(HISTORY[:1]).reward_margin == 0.0
    assert newest(HISTORY).reward_margin == 0.4


def test_what_is_not_a_number_is_absent() -> None:
    from dporun_trainer.training.reporter import newest

    found = newest(HISTORY)
    assert (found.train_loss, found.grad_norm, found.learning_rate) == (None, None, 9e-6)


def test_an_accuracy_of_no_numbers_is_absent() -> None:
    """Above NaN is nothing, so TRL logs an accuracy of 0 there."""
    from dporun_trainer.training.reporter import line, newest

    broken = {"step": 8, "eval_loss": math.nan, "eval_rewards/margins": math.nan, "eval_rewards/accuracies": 0.0}
    found = newest([{"step": 4, "eval_rewards/margins": 0.4, "eval_rewards/accuracies": 0.9}, broken])
    assert (found.reward_accuracy, found.reward_margin) == (None, None)
    assert "accuracy nan%" in line(broken, 18)


def test_a_log_entry_as_a_line() -> None:
    from dporun_trainer.training.reporter import line

    assert line({"step": 4, "epoch": 0.5, "loss": 0.6931, "rewards/accuracies": 0.5}, 18) == (
        "step 4/18  epoch 0.50  loss 0.6931  accuracy 50%"
    )


def test_patience_counts_from_the_lowest_loss() -> None:
    from dporun_trainer.training.callbacks import validations_without_gain

    def after(*losses: float) -> int:
        return validations_without_gain(
            [{"eval_loss": loss, "step": step} for step, loss in enumerate(losses, start=1)]
        )

    assert (after(), after(0.5), after(0.5, 0.4), after(0.5, 0.4, 0.45, 0.4)) == (0, 0, 0, 2)
    assert (after(0.5, math.nan, math.nan), after(math.nan, 0.5, 0.6)) == (2, 1)
    start = [{"eval_loss": 0.1, "step": 0}, {"eval_loss": 0.5, "step": 4}, {"eval_loss": 0.4, "step": 8}]
    assert validations_without_gain(start) == 0, "what was validated before the first step is nothing that was trained"
