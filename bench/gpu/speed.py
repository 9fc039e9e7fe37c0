"""How fast is it? Tokens per second and the share of the GPU's arithmetic, of a small model and one of 8B."""

import sys
from typing import Any

from gpu.common import Found, Place, Run, Shape, Step, main

_SHAPES = {"0.5b": Shape(896, 4864, 24, 14, 2, 151936), "8b": Shape(4096, 14336, 32, 32, 8, 128256)}
_ARMS: dict[str, dict[str, Any]] = {"product": {}}
"""What is compared, as fields of the RunConfig; another way to train is another line here."""


def arm(size: str, name: str) -> Step:
    """A step: twenty steps of 4 pairs of 1024 tokens, after which the meter of the product is read."""

    def step(place: Place) -> Found:
        length, rows = (1024, 4) if place.cuda else (64, 2)
        sections = {
            "dpo": {"max_length": length, "precompute_ref_log_probs": "always"},
            "training": {
                "precision": "bf16",
                "epochs": 1,
                "per_device_batch_size": rows,
                "gradient_accumulation_steps": 1,
                "logging_steps": 5,
            },
        }
        model = place.model(size, _SHAPES[size] if place.cuda else None)
        pairs = (20 if place.cuda else 6) * rows
        run = Run(place, step.__name__, model=model, pairs=pairs, words=length, **sections | _ARMS[name])
        run.trained()
        usage = run.folder.progress.read().usage
        assert usage.tokens_per_second
        return {"usage": usage}

    step.__name__ = f"{name}-{size}".replace(".", "-")
    step.__doc__ = (arm.__doc__ or "").removeprefix("A step: ")
    return step


STEPS = tuple(arm(size, name) for size in _SHAPES for name in _ARMS)

if __name__ == "__main__":
    sys.exit(main("speed", STEPS))
