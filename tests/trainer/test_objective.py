"""The objective over a set of pairs against formulas from the papers, and the loss of a model that learnt nothing."""

import math
import random
from typing import get_args

import pytest

from dporun_api.run_config import Dpo, Loss
from dporun_testing import formulas
from dporun_trainer.objective import Objective, ScoredPair, untrained_loss
from dporun_trainer.training.plan import decide_losses

LOSSES: tuple[Loss, ...] = get_args(Loss)
SMOOTHED: tuple[Loss, ...] = ("sigmoid", "robust", "exo_pair", "aot", "aot_unpaired")
LN_2 = math.log(2)


def some_pairs(count: int = 13, *, spread: float = 8.0) -> list[ScoredPair]:
    """Pairs as training might leave them: responses of 1 to 40 tokens, log-ratios of some nats either way."""
    chance = random.Random(0)
    pairs = []
    for _ in range(count):
        lengths = [chance.randint(1, 40) for _ in range(2)]
        references = [-chance.uniform(0.5, 4) * length for length in lengths]
        policies = [reference + chance.gauss(0, spread) for reference in references]
        pairs.append(ScoredPair(*policies, *references, *lengths))
    return pairs


@pytest.mark.parametrize("beta", [0.1, 0.7])
@pytest.mark.parametrize(
    ("loss", "smoothing"), [(loss, 0.0) for loss in LOSSES if loss != "exo_pair"] + [(loss, 0.1) for loss in SMOOTHED]
)
def test_a_loss_is_that_of_its_paper(loss: Loss, smoothing: float, beta: float) -> None:
    pairs = some_pairs()
    expected = formulas.loss(loss, formulas.Scores.of(pairs), beta=beta, smoothing=smoothing)
    types, weights = decide_losses(Dpo(loss=(loss,), beta=beta, label_smoothing=smoothing))
    assert Objective(types, weights, beta, smoothing).loss(pairs) == pytest.approx(expected, rel=1e-12)


def test_several_losses_are_added_with_their_weights() -> None:
    pairs = some_pairs()
    rows = formulas.Scores.of(pairs)
    expected = (
        0.5 * formulas.loss("sigmoid", rows, beta=0.3)
        + 2 * formulas.loss("sft", rows, beta=0.3)
        - 0.25 * formulas.loss("aot", rows, beta=0.3)
    )
    found = Objective(("sigmoid", "sft", "aot"), (0.5, 2, -0.25), 0.3, 0).loss(pairs)
    assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("loss", LOSSES)
def test_no_order_of_the_rows_matters(loss: str) -> None:
    objective, pairs = Objective((loss,), (1.0,), 0.1, 0.1), some_pairs()
    assert objective.loss(pairs[::-1]) == objective.loss(pairs)


@pytest.mark.parametrize("loss", LOSSES)
def test_log_ratios_of_a_wrecked_model_raise_nothing(loss: str) -> None:
    """They are measured, not trained on: exp(-x) of discopop overflows in float64 as well, to infinity."""
    value = Objective((loss,), (1.0,), 0.1, 0.1).loss(some_pairs(spread=1e5))
    assert math.isfinite(value) or loss == "discopop"


@pytest.mark.parametrize("loss", LOSSES)
def test_a_row_that_is_not_a_number_shows(loss: str) -> None:
    *pairs, last = some_pairs()
    objective = Objective((loss,), (1.0,), 0.1, 0.1)
    assert math.isnan(objective.loss([*pairs, last._replace(chosen=math.nan)]))
    objective.loss([*pairs, last._replace(chosen=math.inf, rejected=-math.inf)])


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        ("sigmoid", LN_2),
        ("hinge", 1),
        ("ipo", 25),
        ("exo_pair", -LN_2 - math.log(0.1 * 0.9) / 2),
        ("nca_pair", 2 * LN_2),
        ("robust", LN_2),
        ("bco_pair", 2 * LN_2),
        ("sppo_hard", 50),
        ("aot", LN_2),
        ("aot_unpaired", LN_2),
        ("apo_zero", 1),
        ("apo_down", 1),
        ("discopop", (LN_2 + 1) / 2),
        ("sft", None),
        ("sigmoid_norm", LN_2),
    ],
)
def test_the_untrained_loss_in_closed_form(loss: str, expected: float | None) -> None:
    found = untrained_loss([loss], None, 0.1, 0.1)
    assert found == (None if expected is None else pytest.approx(expected, rel=1e-12))


def test_every_loss_of_the_api_has_an_untrained_loss_or_none() -> None:
    assert {loss for loss in LOSSES if untrained_loss([loss], None, 0.1, 0.1) is None} == {"sft"}


def test_weights_count_in_the_untrained_loss() -> None:
    assert untrained_loss(["sigmoid", "hinge"], [0.5, 2], 0.1, 0) == pytest.approx(LN_2 / 2 + 2)
    assert untrained_loss(["sigmoid", "sft"], [1, 0.5], 0.1, 0) is None
    assert untrained_loss(["sigmoid", "sft"], [1, 0], 0.1, 0) == pytest.approx(LN_2)


def test_label_smoothing_leaves_the_untrained_loss_of_dpo() -> None:
    types, weights = decide_losses(Dpo(label_smoothing=0.2))
    assert types == ("sigmoid", "robust")
    assert untrained_loss(types, weights, 0.1, 0.2) == pytest.approx(LN_2)


def test_what_is_not_known_has_no_untrained_loss() -> None:
    assert untrained_loss(["a_loss_of_tomorrow"], None, 0.1, 0) is None
    assert untrained_loss(["exo_pair"], None, 0.1, 0) is None, "without smoothing it is infinite"
