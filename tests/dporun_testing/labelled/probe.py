"""Measures the true course of a real run while it trains, and does to the run what its recipe asks for."""

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

PROBED = 64
"""Pairs of either side by which the true course is measured."""
PROBES = 15


def attach(trainer: Any, recipe: Any, population: Any) -> dict[int, dict[str, Any]]:
    """Attach a probe to a trainer; what is returned fills with measurements by step, then by side, as it trains."""
    import torch
    from transformers import PrinterCallback, TrainerCallback

    sides = {
        "population": list(population),
        "own": list(trainer.eval_dataset),
        "training": list(trainer.train_dataset)[:PROBED],
    }
    reference = trainer.model if recipe.lora is not None else copy.deepcopy(trainer.model)
    references = {side: _log_probabilities(reference, rows) for side, rows in sides.items()}
    weights = [weight for weight in trainer.model.parameters() if weight.requires_grad]

    points: dict[int, dict[str, Any]] = {}

    class Probe(TrainerCallback):
        def measure(self, step: int) -> None:
            if step not in points:
                points[step] = {
                    side: _measured(recipe, _log_probabilities(trainer.model, rows), references[side])
                    for side, rows in sides.items()
                }

        def on_train_begin(self, _args: Any, _state: Any, _control: Any, **_: Any) -> None:
            self.measure(0)

        def on_step_begin(self, _args: Any, state: Any, _control: Any, *, optimizer: Any, **_: Any) -> None:
            if state.global_step + 1 == recipe.nan_at:
                with torch.no_grad():
                    weights[0].view(-1)[0] = math.nan
            if state.global_step + 1 in recipe.kicks:
                for group in getattr(optimizer, "optimizer", optimizer).param_groups:
                    group["lr"] = recipe.learning_rate * recipe.kick

        def on_step_end(self, _args: Any, state: Any, control: Any, **_: Any) -> None:
            step, last = state.global_step, state.max_steps
            if control.should_evaluate or step * PROBES // last > (step - 1) * PROBES // last:
                self.measure(step)

        def on_evaluate(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
            self.measure(state.global_step)

    trainer.add_callback(Probe())
    trainer.remove_callback(PrinterCallback)
    return points


def _log_probabilities(model: Any, rows: Sequence[Mapping[str, Any]]) -> Any:
    """Log-probability and tokens of chosen (0) and rejected (1) responses: float64, shape (2, 2, rows)."""
    import torch

    training = model.training
    model.eval()
    sides = []
    for side in ("chosen_ids", "rejected_ids"):
        sequences = [row["prompt_ids"] + row[side] for row in rows]
        width = max(map(len, sequences))
        ids = torch.tensor([sequence + [0] * (width - len(sequence)) for sequence in sequences])
        mask = torch.tensor([[1] * len(sequence) + [0] * (width - len(sequence)) for sequence in sequences])
        begins = torch.tensor([len(row["prompt_ids"]) for row in rows])
        with torch.no_grad():
            logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1].double()
        scores = logits.log_softmax(-1).gather(2, ids[:, 1:, None])[..., 0]
        response = mask[:, 1:].bool() & (torch.arange(1, width)[None] >= begins[:, None])
        sides.append(torch.stack([(scores * response).sum(1), response.sum(1).double()]))
    model.train(training)
    return torch.stack(sides)


def _measured(recipe: Any, now: Any, before: Any) -> dict[str, float]:
    """Loss in units of the untrained model's, accuracy and margin; TRL's formulas, a mean over the pairs."""
    import torch
    from torch.nn.functional import logsigmoid

    chosen, rejected = now[0, 0] - before[0, 0], now[1, 0] - before[1, 0]
    margin = recipe.beta * (chosen - rejected)
    smoothing = recipe.label_smoothing
    half = torch.tensor(0.0, dtype=torch.float64)

    def losses(m: Any, c: Any, r: Any, nll: Any) -> Any:
        total = torch.zeros_like(nll)
        for kind, weight in zip(recipe.loss_type, recipe.loss_weights or (1.0,) * len(recipe.loss_type), strict=True):
            total = (
                total
                + weight
                * {
                    "sigmoid": lambda: -logsigmoid(m),
                    "hinge": lambda: (1 - m).clamp(min=0),
                    "ipo": lambda: (c / now[0, 1] - r / now[1, 1] - 1 / (2 * recipe.beta)) ** 2,
                    "robust": lambda: (
                        (smoothing * logsigmoid(-m) - (1 - smoothing) * logsigmoid(m)) / (1 - 2 * smoothing)
                    ),
                    "apo_zero": lambda: 1 - (recipe.beta * c).sigmoid() + (recipe.beta * r).sigmoid(),
                    "nca_pair": lambda: (
                        -logsigmoid(recipe.beta * c)
                        - 0.5 * (logsigmoid(-recipe.beta * c) + logsigmoid(-recipe.beta * r))
                    ),
                    "sft": lambda: nll,
                }[kind]()
            )
        return total.mean()

    loss = losses(margin, chosen, rejected, -now[0, 0] / now[0, 1])
    untrained = losses(half, half, half, -before[0, 0] / before[0, 1])
    return {
        "loss": (loss / untrained).item(),
        "accuracy": (margin > 0).double().mean().item(),
        "margin": margin.mean().item(),
    }
