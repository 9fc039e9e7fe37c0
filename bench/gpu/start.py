"""Does it start? The driver, the kernels of the wheel, the output head, and tiny runs in every arithmetic."""

import math
import os
import subprocess
import sys
from typing import Any

import torch
from trl.kernels.chunked_logprob import ChunkedLogProbFunction

from dporun_trainer.commands.gpus import look
from dporun_trainer.precision import DTYPES
from gpu.common import TOLERANCES, Found, Place, Run, Shape, Step, main

_CHUNK = 32768
"""Width of a tile of the output head, as TRL calls it."""


def driver(place: Place) -> Found:
    """The driver is found, and torch has kernels for every GPU."""
    report = look()
    assert report.usable is place.cuda, report.why
    return {"driver": report.driver, "cuda": report.driver_cuda, "gpus": len(report.gpus)}


def deepspeed_without_a_compiler(place: Place) -> Found:
    """DeepSpeed is imported without CUDA's compiler, which the image does not have."""
    environment = {name: value for name, value in os.environ.items() if name != "CUDA_HOME"}
    environment["PATH"] = os.pathsep.join([os.path.dirname(sys.executable), "/usr/bin", "/bin"])  # noqa: PTH120
    environment["DS_ACCELERATOR"] = place.device
    program = "import deepspeed.ops, json; print(json.dumps(dict(deepspeed.ops.__compatible_ops__)))"
    found = subprocess.run([sys.executable, "-c", program], env=environment, check=True, capture_output=True, text=True)
    return {"compatible_ops": found.stdout.strip().splitlines()[-1]}


def kernels(place: Place) -> Found:
    """A matrix product in each arithmetic is right."""
    found = {}
    torch.manual_seed(0)
    one, other = torch.randn(2, 256, 256, dtype=torch.float64) / 16
    for precision, name in DTYPES.items():
        dtype = getattr(torch, name)
        product = one.to(place.device, dtype) @ other.to(place.device, dtype)
        found[precision] = (product.double().cpu() - one @ other).abs().max().item()
        assert found[precision] <= TOLERANCES[precision], found
    return found


def head(place: Place) -> Found:
    """The output head's log-probabilities and gradients are those of float64: on a GPU, its Triton kernels."""
    rows, hidden, vocabulary = ((1, 513, 4097), 4096, 128256) if place.cuda else ((1, 5), 16, 50)
    found = {}
    for precision, name in DTYPES.items():
        for count in rows:
            dtype = getattr(torch, name)
            found[f"{precision} {count}"] = errors = _errors_of_head(place, dtype, count, hidden, vocabulary)
            assert max(errors.values()) <= 2 * TOLERANCES[precision], (precision, count, errors)
    return found


def _errors_of_head(place: Place, dtype: torch.dtype, rows: int, hidden: int, vocabulary: int) -> dict[str, float]:
    """Errors relative to the largest value; the reference has the same rounded inputs, in float64."""
    torch.manual_seed(rows)
    x = torch.randn(rows, hidden, device=place.device).to(dtype).requires_grad_()
    weight = (torch.randn(vocabulary, hidden, device=place.device) / hidden**0.5).to(dtype).requires_grad_()
    targets = torch.randint(vocabulary, (rows,), device=place.device)
    found: tuple[Any, ...] = ChunkedLogProbFunction.apply(x, weight, None, targets, 1.0, min(_CHUNK, vocabulary))
    log_probs, entropy, _, mean_logits, _ = found
    log_probs.sum().backward()  # no mean: without a loss scale, its gradients would be too small for fp16
    exact_x, exact_weight = x.detach().double().requires_grad_(), weight.detach().double()
    logits = exact_x @ exact_weight.T
    exact = logits.log_softmax(-1)
    chosen = exact.gather(1, targets[:, None])[:, 0]
    chosen.sum().backward()

    def error(value: torch.Tensor, right: torch.Tensor) -> float:
        return ((value.double() - right).abs().max() / right.abs().max()).item()

    return {
        "log_probs": error(log_probs, chosen),
        "entropy": error(entropy, -(exact.exp() * exact).sum(-1)),
        "mean_logits": (mean_logits.double() - logits.mean(-1)).abs().max().item(),
        "gradient": error(x.grad, exact_x.grad),
    }


def trains(name: str, shape: Shape | None = None, **sections: Any) -> Step:
    """A step: a tiny run through prepare, train and finish succeeds, and its first loss is ln 2."""

    def step(place: Place) -> Found:
        precision = sections["training"]["precision"]
        model = None if shape is None else place.model(name, shape)
        run = Run(place, name.replace("_", "-"), model=model, **sections)
        outcome = run.whole()
        losses, record = run.losses(), run.folder.training_config.load()
        # Precomputed in batches of other lengths: on a GPU, other kernels, with other roundings.
        near = TOLERANCES[precision] if place.cuda and record.dpo.precompute_ref_log_probs else 1e-7
        assert abs(losses[0] - math.log(2)) <= near, losses[0]
        assert losses[-1] < losses[0], losses
        assert record.training.precision == precision
        return {"losses": losses, "message": outcome.message, "usage": run.folder.progress.read().usage}

    step.__name__ = name
    step.__doc__ = f"{trains.__doc__} {sections}".removeprefix("A step: ")
    return step


def _training(precision: str, **more: Any) -> dict[str, Any]:
    return {"precision": precision, "learning_rate": 2e-2, "epochs": 1} | more


_ALWAYS, _NEVER = ({"precompute_ref_log_probs": value} for value in ("always", "never"))
_ON_THE_CPU_TOO = (
    trains("bf16_precomputed", training=_training("bf16"), dpo=_ALWAYS, evaluation={"max_new_tokens": 4}),
    trains("bf16", training=_training("bf16"), dpo=_NEVER),
    trains("fp32", training=_training("fp32"), dpo=_ALWAYS),
    trains("checkpointing", training=_training("bf16", gradient_checkpointing="always"), dpo=_NEVER),
    trains("stage_1", training=_training("bf16"), dpo=_NEVER, topology={"deepspeed": {"zero_stage": 1}}),
    trains("offload", training=_training("bf16"), dpo=_NEVER, topology={"deepspeed": {"offload_optimizer": True}}),
    trains(
        "nf4",
        Shape(hidden=256, intermediate=512),  # widths that bitsandbytes has its own kernels for
        quantization="nf4",
        training=_training("bf16"),
        dpo=_ALWAYS,
        evaluation={"max_new_tokens": 4},
    ),
    trains("nf4_not_precomputed", quantization="nf4", training=_training("bf16"), dpo=_NEVER),
)


def fp16(place: Place) -> Found:
    """A tiny run in fp16 succeeds, and its first loss is ln 2; DeepSpeed has no fp16 on a CPU."""
    place.gpu_only("DeepSpeed has no fp16 on a CPU")
    return trains("fp16", training=_training("fp16"), dpo=_ALWAYS)(place)


STEPS = (driver, deepspeed_without_a_compiler, kernels, head, *_ON_THE_CPU_TOO, fp16)

if __name__ == "__main__":
    sys.exit(main("start", STEPS))
