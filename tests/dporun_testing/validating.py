"""Validate with a run's trainer in several layouts and by every loss, and score its rows apart from it, in float64.

``python -m dporun_testing.validating CONFIG DIRECTORY`` is one of several training processes of a prepared run: it
trains, validates, and its first process prints what it found as JSON.
"""

import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

from dporun_api.run_config import Dpo, Loss, RunConfig
from dporun_testing import training
from dporun_trainer.objective import Objective
from dporun_trainer.training.plan import decide_losses

Layout = tuple[int, int]
"""Rows of the validation set, and rows of a batch of one process."""

OBJECTIVES = tuple(
    [Dpo(loss=(loss,), beta=0.3, label_smoothing=0.1 if loss == "exo_pair" else 0) for loss in get_args(Loss)]
    + [Dpo(loss=(loss,), beta=0.7, label_smoothing=0.2) for loss in ("sigmoid", "robust", "aot", "aot_unpaired")]
    + [Dpo(loss=("sigmoid", "sft"), loss_weights=(1, 0.5)), Dpo(loss=("ipo", "aot", "sft"), loss_weights=(0.1, 2, 1))]
)
"""Every loss of the API, with label smoothing where it has an effect, and several losses together."""


def validations(trainer: Any, layouts: Sequence[Layout]) -> Iterator[dict[str, Any]]:
    """Validate the first rows of the run's validation set in each layout, by every objective in the first of them.

    The run's callbacks are taken off: they would record it, and generate answers.
    """
    for callback in list(trainer.callback_handler.callbacks):
        trainer.remove_callback(callback)
    everything, own = trainer.eval_dataset, trainer.objective
    for rows, batch in layouts:
        trainer.eval_dataset = everything.select(range(rows))
        trainer.args.per_device_eval_batch_size = batch
        yield {"rows": rows, "batch": batch, "objective": None, **trainer.evaluate()}
    trainer.eval_dataset = everything
    trainer.args.per_device_eval_batch_size = layouts[0][1]
    for number, dpo in enumerate(OBJECTIVES):
        trainer.objective = Objective(*decide_losses(dpo), dpo.beta, dpo.label_smoothing)
        yield {"rows": len(everything), "batch": layouts[0][1], "objective": number, **trainer.evaluate()}
    trainer.objective = own


def scores(trainer: Any) -> list[dict[str, float]]:
    """What there is to know of each row of the validation set: one sequence at a time, in float64.

    The model stays in float64 afterwards.
    """
    import torch

    model = trainer.accelerator.unwrap_model(trainer.model).eval().double()
    found = []
    for row in trainer.eval_dataset:
        values: dict[str, float] = {}
        for side in ("chosen", "rejected"):
            prompt, answer = row["prompt_ids"], row[f"{side}_ids"]
            ids = torch.tensor([prompt + answer])
            targets = ids[0, len(prompt) :]
            with torch.no_grad():
                logits = model(ids).logits[0, len(prompt) - 1 : -1]
                with model.disable_adapter():
                    base = model(ids).logits[0, len(prompt) - 1 : -1]
            distribution = torch.distributions.Categorical(logits=logits)
            values |= {
                side: distribution.log_prob(targets).sum().item(),
                f"ref_{side}": torch.distributions.Categorical(logits=base).log_prob(targets).sum().item(),
                f"{side}_tokens": len(answer),
                f"{side}_entropy": distribution.entropy().sum().item(),
                f"{side}_logits": logits.mean(dim=1).sum().item(),
                f"{side}_likeliest": (logits.argmax(dim=1) == targets).sum().item(),
            }
        found.append(values)
    return found


def by_processes(config: RunConfig, directory: Path, layouts: Sequence[Layout]) -> dict[str, Any]:
    """Train a prepared run with its processes, and return the validations of its trainer and the scores of its rows."""
    found: dict[str, Any] = training.by_processes("dporun_testing.validating", config, directory, json.dumps(layouts))
    return found


def main() -> None:
    """Be one process of a run."""
    config_path, directory, layouts = sys.argv[1:]
    config, rank = RunConfig.model_validate_json(Path(config_path).read_bytes()), int(os.environ["RANK"])
    trainer = training.attempt(config, Path(directory), rank=rank)
    found = list(validations(trainer, json.loads(layouts)))
    if rank == 0:
        (Path(directory) / "found.json").write_text(json.dumps({"validations": found, "scores": scores(trainer)}))
    trainer.accelerator.wait_for_everyone()


if __name__ == "__main__":
    main()
