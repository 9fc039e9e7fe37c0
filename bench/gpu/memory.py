"""Is the memory what was estimated? A model of Llama-3-8B's shape: how it is loaded, and the peak of training."""

import json
import subprocess
import sys
from typing import Any

from dporun_api.run_config import Quantization
from dporun_trainer.memory import Shape, estimate
from gpu import common
from gpu.common import Found, Place, Run, Step, main

_EIGHT_BILLION = common.Shape(4096, 14336, 32, 32, 8, 128256)
_LOAD = """
import json, resource, sys, time
import torch
from dporun_trainer.training.build import load_base
began = time.monotonic()
model = load_base(sys.argv[1], "bf16", json.loads(sys.argv[2]))
seconds = time.monotonic() - began
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
held = int(status["RssAnon"].split()[0]) * 1024  # without what is mapped from files, such as the libraries
most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # with what is read through the page cache
print(json.dumps({"seconds": seconds, "host_bytes": held, "most_host_bytes": most}))
"""


def loading(place: Place) -> Found:
    """On a GPU, weights go there at once: the host's memory never holds the model."""
    model = place.model("8b", _EIGHT_BILLION if place.cuda else None)
    command = [sys.executable, "-c", _LOAD, str(model), json.dumps({"": place.device} if place.cuda else None)]
    ended = subprocess.run(command, check=True, capture_output=True, text=True)
    found: Found = json.loads(ended.stdout.splitlines()[-1])
    weights = sum(file.stat().st_size for file in model.glob("*.safetensors"))
    if place.cuda:  # on a CPU, the libraries are larger than the model
        assert found["host_bytes"] < weights / 4, (found, weights)
    return found | {"weights": weights}


def peak(checkpointing: str, rows: int = 2, quantization: Quantization | None = None) -> Step:
    """A step: training's peak of memory is at most what was estimated, and not less than two thirds of it."""

    def step(place: Place) -> Found:
        length = 1024 if place.cuda else 64
        run = Run(
            place,
            step.__name__.replace("_", "-"),
            model=place.model("8b", _EIGHT_BILLION if place.cuda else None),
            quantization=quantization,
            pairs=10 * rows,
            words=length,
            dpo={"max_length": length, "precompute_ref_log_probs": "never"},
            lora={"rank": 16 if place.cuda else 4},
            training=_training(checkpointing, rows),
        )
        run.trained()
        usage, prepared = run.folder.progress.read().usage, run.folder.load_prepared()
        assert usage.peak_memory_bytes
        rows_seen = prepared.lint.train.total
        shape = Shape.of(run.config, prepared.model, rows_seen.maximum if rows_seen else None)
        parts = estimate(run.config, shape, arithmetic="bf16", cuda=place.cuda)
        estimated = parts.process(checkpointing=checkpointing == "always")
        ratio = usage.peak_memory_bytes / estimated
        if place.cuda:  # on a CPU, the libraries are larger than the model
            assert 2 / 3 <= ratio <= 1, ratio
        return {"peak": usage.peak_memory_bytes, "estimate": estimated, "parts": parts, "usage": usage}

    step.__name__ = f"peak_{rows}_pairs_checkpointing_{checkpointing}" + (f"_{quantization}" if quantization else "")
    step.__doc__ = (peak.__doc__ or "").removeprefix("A step: ")
    return step


def _training(checkpointing: str, rows: int) -> dict[str, Any]:
    return {
        "precision": "bf16",
        "epochs": 1,
        "per_device_batch_size": rows,
        "gradient_accumulation_steps": 1,
        "gradient_checkpointing": checkpointing,
    }


STEPS = (loading, peak("always"), peak("never"), peak("always", 4), peak("always", quantization="nf4"))

if __name__ == "__main__":
    sys.exit(main("memory", STEPS))
