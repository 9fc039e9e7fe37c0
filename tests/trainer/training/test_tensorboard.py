import math
import re

import pytest

pytestmark = pytest.mark.slow  # imports torch

SPECIFIED = {
    "loss",
    "optimizer/learning_rate",
    "optimizer/gradient_norm",
    "rewards/chosen",
    "rewards/rejected",
    "rewards/margin",
    "rewards/accuracy",
    "system/pairs_per_second",
    "system/tokens_per_second",
    "system/peak_memory_gib",
    "system/reserved_memory_gib",
    "system/gpu_utilization",
    "system/model_flops_utilization",
}


def test_training_and_validation_share_their_tags() -> None:
    from dporun_trainer.training.tensorboard import scalars

    train = scalars({"loss": 0.6, "rewards/margins": 0.1, "grad_norm": 1.0, "epoch": 1.0})
    validation = scalars({"eval_loss": 0.7, "eval_rewards/margins": 0.2, "eval_runtime": 3.0})
    assert train == {"loss": 0.6, "rewards/margin": 0.1, "optimizer/gradient_norm": 1.0}
    assert validation == {"loss": 0.7, "rewards/margin": 0.2}


def test_what_is_not_a_number_makes_a_gap() -> None:
    from dporun_trainer.training.tensorboard import scalars

    assert scalars({"loss": math.nan, "grad_norm": math.inf, "learning_rate": 0.0}) == {"optimizer/learning_rate": 0.0}
    assert scalars({"rewards/chosen": math.nan, "rewards/accuracies": 0.0}) == {}


def test_the_layout_shows_every_chart_of_the_specification() -> None:
    from dporun_trainer.training.tensorboard import LAYOUT

    patterns = [pattern for _, tags in LAYOUT["DPO"].values() for pattern in tags]
    shown = {tag for tag in SPECIFIED for pattern in patterns if re.search(pattern, tag)}
    assert shown == SPECIFIED
    assert next(iter(LAYOUT["DPO"])) == "Loss"


def test_a_sample_quotes_answers_and_their_markdown_is_inert() -> None:
    from dporun_trainer.training.tensorboard import sample

    text = sample("Who?", "# nobody\n<script>", "", "someone")
    assert "    # nobody\n    <script>" in text
    assert "(empty)" in text
    assert [name for name in ("Prompt", "Base", "Tuned", "Chosen") if f"**{name}**" in text] == [
        "Prompt",
        "Base",
        "Tuned",
        "Chosen",
    ]
