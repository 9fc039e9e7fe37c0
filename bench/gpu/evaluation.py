"""Is what was trained what is evaluated and merged? A run with evaluation, forgetting and merge, in bf16."""

import sys
import time

from dporun_testing import training
from gpu.common import TOLERANCES, Found, Place, Run, Shape, main


def evaluated(place: Place) -> Found:
    """The evaluation scores as validation did, within rounding, and the merged model answers as the adapter does."""
    shape = Shape(896, 4864, 24, 14, 2, 151936) if place.cuda else None
    run = Run(
        place,
        "evaluated",
        model=place.model("0.5b", shape),
        pairs=64 if place.cuda else 16,
        training={"precision": "bf16", "epochs": 1, "learning_rate": 1e-4 if place.cuda else 2e-2},
        evaluation={"max_new_tokens": 64 if place.cuda else 4},
    )
    began = time.monotonic()
    outcome = run.whole()
    seconds = time.monotonic() - began
    metrics = run.folder.evaluation.metrics.load()
    (validated,) = (entry for entry in training.history(run.folder.path) if "eval_loss" in entry)
    difference = abs(metrics.reward_margin - validated["eval_rewards/margins"])
    size = max(1.0, abs(metrics.reward_margin))
    assert difference <= TOLERANCES["bf16"] * size, (metrics.reward_margin, validated)
    assert outcome.verdict is not None
    return {
        "seconds": seconds,
        "margin": metrics.reward_margin,
        "difference from validation": difference,
        "verdict": outcome.verdict,
        "merged": [path.name for path in run.folder.merged.iterdir()],
    }


STEPS = (evaluated,)

if __name__ == "__main__":
    sys.exit(main("evaluation", STEPS))
