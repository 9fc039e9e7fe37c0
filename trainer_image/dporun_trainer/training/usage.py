"""How hard the processes' devices work: memory, utilisation, tokens per second, and the share of what they could do."""

import resource
import time
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback
from trl.trainer.utils import compute_flops_per_token, compute_mfu, get_peak_flops

from dporun_api.results import Usage
from dporun_trainer.precision import DTYPES
from dporun_trainer.training.agreement import largest

if TYPE_CHECKING:
    from dporun_trainer.training.trainer import RunTrainer

_OF_LORA = 2 / 3
"""Share of a full training's arithmetic: of forward, gradients of inputs and gradients of weights, as much each, LoRA
has no need of the last, apart from the adapter's own (Hu et al. 2021, https://arxiv.org/abs/2106.09685, section 4)."""


class UsageMeter(TrainerCallback):
    """Measure the usage since the newest log; in every process, as the most used device is what matters."""

    def __init__(self, trainer: "RunTrainer", length: int):
        self._trainer = trainer
        self._flops = flops_per_token(trainer.model.config.get_text_config(), length)
        self._peak = get_peak_flops(trainer.run.machine.name, DTYPES[trainer.run.plan.precision])
        self._tokens: float | None = None
        self._seconds = 0.0
        self._began = time.monotonic()
        self.newest = Usage()

    def on_step_begin(self, *_: Any, **_named: Any) -> None:
        """Count the time of steps alone: validation and checkpoints are not training."""
        self._began = time.monotonic()

    def on_step_end(self, *_: Any, **_named: Any) -> None:
        """Count it."""
        self._seconds += time.monotonic() - self._began

    def on_log(self, _args: Any, _state: Any, _control: Any, logs: dict[str, float], **_: Any) -> None:
        """Measure. Collective."""
        if "loss" not in logs:
            return
        device = self._trainer.accelerator.device
        peak, reserved, utilization = largest(*_of_this_process(device), device=device)
        before, self._tokens = self._tokens, logs.get("num_tokens")
        rate = None
        if before is not None and self._tokens is not None and self._seconds > 0:
            rate = max(self._tokens - before, 0.0) / self._seconds
        self._seconds = 0.0
        self.newest = Usage(
            tokens_per_second=rate,
            model_flops_utilization=self._utilization_of_peak(rate),
            peak_memory_bytes=int(peak),
            reserved_memory_bytes=int(reserved) or None,
            gpu_utilization=utilization / 100 if utilization >= 0 else None,
        )

    def _utilization_of_peak(self, rate: float | None) -> float | None:
        if rate is None or self._flops is None or self._peak is None:
            return None
        return float(compute_mfu(self._flops, rate, self._trainer.accelerator.num_processes, self._peak)) / 100


def flops_per_token(config: Any, length: int) -> int | None:
    """Floating-point operations of training LoRA on one token; None for a model that TRL's formula does not fit.

    Args:
        config: of the text model.
        length: tokens of a sequence, on average.

    """
    try:
        return int(_OF_LORA * compute_flops_per_token(config, length))
    except (AttributeError, TypeError):
        return None


def _of_this_process(device: torch.device) -> tuple[float, float, float]:
    """Peak and reserved bytes of memory, and percent of the time that the GPU worked; -1 where nobody knows."""
    if device.type != "cuda":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, 0, -1
    try:
        utilization = float(torch.cuda.utilization(device))
    except Exception:  # noqa: BLE001  NVML may be missing, or refuse: no reason to stop a run
        utilization = -1
    return torch.cuda.max_memory_allocated(device), torch.cuda.memory_reserved(device), utilization
